"""The device and number format of an engine, and whether a model fits it."""

import ctypes
import os
from pathlib import Path

import torch

from emu.execution.model import Executable
from emu.execution.torch_engine.architecture import Architecture
from emu.execution.torch_engine.errors import EngineError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Kept free of weights and KV cache for what a pass computes in between and for the libraries' own use.
RESERVE_BYTES = {"cpu": 256 << 20, "cuda": 2 << 30}
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
MAX_THRESHOLD = 1 << 30


def parse_device(text: str) -> torch.device:
    """A device from cpu, cuda or cuda:N. Raises EngineError where this host has none such."""
    kind, _, index = text.partition(":")
    if text == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (index and not index.isdecimal()) or text.endswith(":"):
        raise EngineError(f"device={text}: expected cpu, cuda or cuda:N")
    num_devices = torch.cuda.device_count()
    if int(index or 0) >= num_devices:
        had = f"cpu or cuda:0 to cuda:{num_devices - 1}" if num_devices else "cpu: torch sees no CUDA device here"
        raise EngineError(f"device={text}: expected {had}")
    return torch.device("cuda", int(index or 0))


def num_cuda_devices() -> int:
    """How many CUDA devices torch sees on this host."""
    return torch.cuda.device_count()


def keep_freed_memory() -> None:
    """Have the C library keep for the next step what this one frees, where it can be told (glibc).

    Else large tensors go back to the system and come as pages to be cleared at their first touch: 1,800 pages, 3 ms of 145,
    in a prefill of 192 tokens (llama_30m, one core of a virtual machine, 2026-11-28), and many more at times.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(option, MAX_THRESHOLD)


def parse_dtype(text: str, device: torch.device) -> torch.dtype:
    """A number format from fp32, fp16 or bf16. Raises EngineError where the device lacks it."""
    if text not in DTYPES:
        raise EngineError(f"dtype={text}: expected one of {', '.join(DTYPES)}")
    if text == "bf16" and device.type == "cuda":
        with torch.cuda.device(device):
            if not torch.cuda.is_bf16_supported(including_emulation=False):
                raise EngineError(f"dtype=bf16: {torch.cuda.get_device_name()} lacks it; expected fp16 or fp32")
    return DTYPES[text]


def check_memory(architecture: Architecture, dtype: torch.dtype, num_kv_tokens: int, device: torch.device) -> None:
    """Raises EngineError where the weights, a KV cache of so many tokens and a reserve exceed the device's free memory."""
    weights = architecture.num_params * dtype.itemsize
    kv = num_kv_tokens * architecture.kv_values_per_token * dtype.itemsize
    reserve = RESERVE_BYTES[device.type]
    available = available_bytes(device)
    if weights + kv + reserve > available:
        raise EngineError(
            f"the model does not fit {device}: weights {weights:,} bytes + KV cache of {num_kv_tokens:,} tokens {kv:,} + "
            f"reserve {reserve:,} = {weights + kv + reserve:,} bytes needed, {available:,} free"
        )


def max_kv_blocks(executable: Executable, device: str, block_tokens: int) -> int:
    """KV blocks for which the device has room now, beside the weights and the reserve; 0 where those do not fit. Raises
    EngineError for a device or a number format that is not there."""
    architecture, target = executable.architecture, parse_device(device)
    itemsize = parse_dtype(executable.dtype, target).itemsize
    left = available_bytes(target) - architecture.num_params * itemsize - RESERVE_BYTES[target.type]
    return max(0, left // (architecture.kv_values_per_token * itemsize)) // block_tokens


def available_bytes(device: torch.device) -> int:
    """Memory that can be allocated there now: of the GPU, or of the host within the limit of its container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, max(int(limit) - used, 0))
