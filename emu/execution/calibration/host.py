"""timing=host: what this host itself takes, measured when it is first asked for."""

import hashlib
import os
import pickle
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from emu.core import setting
from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing.calibrated import CalibratedFamily
from emu.core.timing.model import TimingError, TimingModel
from emu.core.timing.provenance import Provenance
from emu.execution.calibration.device import device_name, torch_version
from emu.execution.calibration.job import QUICK, Job
from emu.execution.model import Executable, executable_of
from emu.files import locked, read_text
from emu.install import install_command

FOLDER = Path("runs/calibrations")
KEPT_KEYS = {"source", "date", "error", "tensor_parallel", "fits"}  # without one of them a calibration is made anew
BLOCK_TOKENS = 16
EMU = Path(__file__).parents[2]
# What a calibration depends on: the code that computes steps, and that measures and fits them.
CODE = (
    "execution/torch_engine/*.py",
    "execution/calibration/*.py",
    "execution/step_thread.py",
    "execution/speed_probe.py",
    "core/timing/calibrated.py",
    "core/timing/probe.py",
)


class HostTiming:
    """The timing of models on what `hardware` stands for: this host's `device`, with `num_threads` threads on a CPU, while
    `num_beside` other machines work on the same host. `prefill_speed` and `decode_speed` as in `CalibratedFamily`.

    A calibration is kept in runs/calibrations/ of the working directory. Where there is none for this model, device and torch,
    by this code, it is made at once: in under a minute, by a process of its own, which says on stderr how far it is. So is one
    that does not say where it comes from.
    """

    def __init__(
        self, hardware: str, device: str, num_threads: int, num_beside: int, prefill_speed: float, decode_speed: float
    ) -> None:
        self.hardware = hardware
        self.provenance = Provenance(name="host")  # until a calibration is read
        if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
            raise setting.SettingError(f"timing.device={device}: expected cpu, cuda or cuda:N")
        self.device = device
        self.num_threads = setting.whole("timing.num_threads", num_threads, 1, 1024)
        self.num_beside = setting.whole("timing.num_beside", num_beside, 0, 1024)
        self.prefill_speed = setting.positive("timing.prefill_speed", prefill_speed)
        self.decode_speed = setting.positive("timing.decode_speed", decode_speed)

    def for_machine(self, model: ModelSpec, hardware: HardwareSpec) -> TimingModel:
        """Raises TimingError for a model that cannot be executed, another hardware, and where the calibration fails."""
        if hardware.name != self.hardware:
            raise TimingError(
                f"no timing for hardware {hardware.name}: timing=host is of this host, which timing.hardware={self.hardware} "
                "stands for"
            )
        if not isinstance(model.executable, Executable):
            raise TimingError(
                f"timing=host: model {model.name} is known by its timing only; "
                "expected one that can be executed, such as llama_30m"
            )
        job = Job(
            model=model,
            hardware=hardware.name,
            device=self.device,
            num_threads=self.num_threads,
            max_kv_blocks=hardware.num_kv_blocks(model, BLOCK_TOKENS),
            block_tokens=BLOCK_TOKENS,
            num_beside=self.num_beside,
            effort=QUICK,
        )
        path = FOLDER / f"{digest(job)}.yaml"
        kept = _kept(path) or _calibrate(job, path)
        values = {key: kept[key] for key in KEPT_KEYS}
        family = CalibratedFamily(
            **values, prefill_speed=self.prefill_speed, decode_speed=self.decode_speed, name=self.provenance.name
        )
        self.provenance = family.provenance
        return family.for_machine(model, hardware)


def digest(job: Job) -> str:
    """Of all that the times depend on: what is executed, on what, and by which code."""
    executable = executable_of(job.model)
    parts = [job.model.name, executable.architecture, executable.dtype, job.hardware, job.device, job.num_threads]
    parts += [job.num_beside, job.max_kv_blocks, device_name(job.device), torch_version()]
    hashed = hashlib.sha256(repr(parts).encode())
    for pattern in CODE:
        for path in sorted(EMU.glob(pattern)):
            hashed.update(path.read_bytes())
    return hashed.hexdigest()[:16]


def _kept(path: Path) -> dict[str, Any] | None:
    """The calibration in the file; None where there is none, or one that does not tell where it comes from."""
    try:
        content = yaml.safe_load(read_text(path))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    return content if isinstance(content, dict) and content.keys() >= KEPT_KEYS else None


def _calibrate(job: Job, path: Path) -> dict[str, Any]:
    """Measure, write the file, and return its content."""
    if find_spec("torch") is None:
        raise setting.MissingExtra(f"timing=host needs torch, which is not installed; {install_command('torch')}", "torch")
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock"), waits=True):  # others that need the same calibration
        if kept := _kept(path):
            return kept
        task = (job, path, path.with_suffix(".jsonl"), "timing=host")
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "emu.execution.calibration"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(EMU.parent), os.environ.get("PYTHONPATH"))))},
        )
        assert process.stdin is not None and process.stderr is not None  # they are pipes
        process.stdin.write(pickle.dumps(task))
        process.stdin.close()
        last_line = ""
        for line in process.stderr:
            last_line = line.decode(errors="replace").rstrip() or last_line
            print(last_line, file=sys.stderr)
        if process.wait():
            raise TimingError(f"timing=host: the calibration of {job.model.name} failed: {last_line}")
        return yaml.safe_load(path.read_text())
