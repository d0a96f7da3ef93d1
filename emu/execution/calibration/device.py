"""The device that is calibrated, as the operating system and the driver describe it."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

POWER_PERIOD_S = 0.2


def device_name(device: str) -> str:
    """The model of the CPU or the GPU."""
    if device == "cpu":
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
        return f"{model}, {os.cpu_count()} cores"
    return _ask_driver(device, "name") or "unknown GPU"


def torch_version() -> str:
    """That of the installed torch, which is not imported."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return "none"


@contextmanager
def metered(device: str) -> Iterator[list[float]]:
    """Yields a list to which samples of the watts that a GPU draws are added meanwhile: none where no driver tells."""
    samples: list[float] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(POWER_PERIOD_S):
            watts = _ask_driver(device, "power.draw")
            if not watts.replace(".", "", 1).isdecimal():
                return
            samples.append(float(watts))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def _ask_driver(device: str, figure: str) -> str:
    """What NVML knows of a GPU, by the command that comes with every driver; '' of a CPU and without a driver."""
    if device == "cpu":
        return ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    index = int(device.partition(":")[2] or 0)
    gpu = visible[index] if visible[0] and index < len(visible) else str(index)
    command = ["nvidia-smi", f"--id={gpu}", f"--query-gpu={figure}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
