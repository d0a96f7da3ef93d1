"""Which machines execute their steps, as configured; the others sleep by a timing model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol

import numpy as np
import psutil

from emu.core import setting
from emu.core.cluster import Cluster
from emu.core.machine_kind import MachineKind, MachineSpec
from emu.core.specs import ModelSpec
from emu.execution.model import Executable, block_tokens_of, executable_of
from emu.execution.prompts import Prompts
from emu.install import install_command

PROCESS_BYTES = 400_000_000  # of host memory for a process with torch, before the model (torch 2.13 on a CPU)
CUDA_BLOCK_TOKENS = 128  # the block of keys of torch's flex attention
CUDA_PROCESS_BYTES = 2_000_000_000  # the same with CUDA's libraries and context: an assumption


class WallClockRuntime(Protocol):
    """What a runtime must have for machines to execute: this `name`, and a `dilation` of 1."""

    name: str
    dilation: float | str


class Execution(ABC):
    """What every `conf/execution/*.yaml` describes."""

    @abstractmethod
    def real_machines(self, machines: Sequence[MachineSpec]) -> tuple[int, ...]:
        """The indices of the machines that execute. Raises SettingError for a name that is none of theirs."""


class EmulatedExecution(Execution):
    """No machine executes anything."""

    def real_machines(self, machines: Sequence[MachineSpec]) -> tuple[int, ...]:
        return ()


class TorchExecution(Execution):
    """`machines` (`all`, or names) execute with torch, each on its own `device`: see conf/execution/torch.yaml.

    Raises SettingError for values out of range.
    """

    def __init__(
        self,
        machines: str | list,
        device: str,
        num_threads: int,
        num_gpus: float,
        output: str,
        temperature: float,
        top_p: float,
        probe_interval_s: float,
    ) -> None:
        if isinstance(machines, str):
            setting.one_of("execution.machines", machines, ("all", "[NAME, ...]"))
        elif not machines:
            raise setting.SettingError("execution.machines=[]: expected all or names; execution=emulated has no real machine")
        self.machines = machines
        self.device = device
        kind, colon, number = device.partition(":")
        if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and number.isdecimal())):
            raise setting.SettingError(f"execution.device={device}: expected cpu, cuda or cuda:N")
        self.num_threads = setting.whole("execution.num_threads", num_threads, 1, 1024)
        self.num_gpus = setting.positive("execution.num_gpus", num_gpus)
        self.output = setting.one_of("execution.output", output, ("forced", "eos"))
        self.temperature = setting.not_negative("execution.temperature", temperature)
        self.top_p = setting.between("execution.top_p", top_p, 1e-6, 1)
        self.probe_interval_s = setting.period_s_or_zero("execution.probe_interval_s", probe_interval_s)

    def real_machines(self, machines: Sequence[MachineSpec]) -> tuple[int, ...]:
        return self._indices([spec.name for spec in machines])

    def _indices(self, names: Sequence[str]) -> tuple[int, ...]:
        if self.machines == "all":
            return tuple(range(len(names)))
        index_of = {name: index for index, name in enumerate(names)}
        return tuple(index_of[setting.one_of("execution.machines", name, tuple(index_of))] for name in self.machines)

    def check_runtime(self, runtime: WallClockRuntime, payload_scale: float | str) -> None:
        """Raises SettingError where machines cannot execute each in its own time, or get only a part of a KV cache."""
        if runtime.name != "ray":
            raise setting.SettingError(
                f"execution=torch needs runtime=ray, not {runtime.name}: a machine that executes takes wall time"
            )
        if runtime.dilation != 1:
            raise setting.SettingError(
                f"runtime.dilation={runtime.dilation}: expected 1 with execution=torch: a machine that executes takes wall time"
            )
        if payload_scale not in ("auto", 1):
            raise setting.SettingError(
                f"transfer.payload_scale={payload_scale}: expected auto or 1 with execution=torch, "
                "which needs all bytes of a KV cache"
            )

    def check(self, model: ModelSpec, kind: MachineKind, names: Sequence[str], num_tokens: int) -> None:
        """Raises SettingError where machines of `kind` with these names cannot serve requests of up to `num_tokens` tokens,
        prompt and output, by executing `model`, and MissingExtra where torch is not installed."""
        self._indices(names)
        if not isinstance(model.executable, Executable):
            raise setting.SettingError(
                f"execution=torch: model {model.name} is known by its timing only; expected one that can be executed, such as "
                "model=llama_30m, model=llama3_8b or model=checkpoint"
            )
        if not hasattr(kind, "block_tokens"):
            raise setting.SettingError("execution=torch: expected machine=paged, for KV caches are kept in blocks")
        if self.device != "cpu" and kind.block_tokens % CUDA_BLOCK_TOKENS:
            raise setting.SettingError(
                f"machine.block_tokens={kind.block_tokens}: expected a multiple of {CUDA_BLOCK_TOKENS} with "
                f"execution.device={self.device}, whose attention reads KV caches by as many tokens"
            )
        context = model.executable.architecture.max_positions
        if num_tokens > context:
            raise setting.SettingError(
                f"execution=torch: the workload has a request of {num_tokens} tokens, prompt and output; expected at most "
                f"{context}, the context of model {model.name}"
            )
        if find_spec("torch") is None:
            what = f"execution=torch needs torch, which is not installed; {install_command('torch')}"
            raise setting.MissingExtra(what, "torch")

    def check_host(self, cluster: Cluster) -> None:
        """Raises SettingError where this host lacks the memory, or the GPUs, for the machines of `cluster` that execute."""
        machines = [cluster.machines[index] for index in self.real_machines(cluster.machines)]
        if self.device == "cpu":
            self._check_memory(cluster, machines)
            return
        from emu.execution.torch_engine.device import num_cuda_devices, parse_device
        from emu.execution.torch_engine.errors import EngineError

        try:
            parse_device(self.device)
        except EngineError as error:
            raise setting.SettingError(f"execution.{error}") from error
        num_gpus = num_cuda_devices()
        if len(machines) * self.num_gpus > num_gpus:
            raise setting.SettingError(
                f"execution.num_gpus={self.num_gpus:g}: {len(machines)} real machines need {len(machines) * self.num_gpus:g} "
                f"GPUs, and this host has {num_gpus}; expected fewer real machines, or machines that share a GPU"
            )

    def prompts(self, model: ModelSpec, prompt_tokens: np.ndarray, given: Sequence[np.ndarray] | None, seed: int) -> Prompts:
        """The token ids of all requests. Raises SettingError where one that is `given` is not in the model's vocabulary."""
        return Prompts(prompt_tokens, executable_of(model).architecture.vocab_size, seed, given)

    def stop_ids(self, model: ModelSpec) -> frozenset[int]:
        """The tokens that end an output."""
        return frozenset(executable_of(model).architecture.eos_ids if self.output == "eos" else ())

    def needs(self, cluster: Cluster, spec: MachineSpec) -> dict[str, float]:
        """What the process of a real machine declares to Ray."""
        if self.device != "cpu":
            return {"memory": CUDA_PROCESS_BYTES, "num_gpus": self.num_gpus}
        kv_bytes = spec.num_kv_blocks * block_tokens_of(cluster) * cluster.model.kv_bytes_per_token
        return {"memory": PROCESS_BYTES + cluster.model.weight_bytes + kv_bytes}

    def _check_memory(self, cluster: Cluster, machines: Sequence[MachineSpec]) -> None:
        needed = sum(self.needs(cluster, spec)["memory"] for spec in machines)
        had = psutil.virtual_memory().available
        if needed > had:
            raise setting.SettingError(
                f"execution.machines={','.join(spec.name for spec in machines)}: {cluster.model.name} with its KV caches needs "
                f"{needed:,} bytes of memory and this host has {had:,} left; expected fewer real machines, a smaller model or "
                "less hardware memory"
            )
