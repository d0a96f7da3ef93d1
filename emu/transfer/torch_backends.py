"""What differs between torch.distributed's backends, for point-to-point operations in groups of two."""

import contextlib
import os
from abc import ABC, abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch.distributed import ProcessGroup, Store

from emu.transfer.buffers import Buffers
from emu.transfer.settings import TransferError

if TYPE_CHECKING:
    from emu.transfer.cuda_buffers import CudaBuffers

    TensorBuffers: TypeAlias = "CudaBuffers | HostBuffers"

LAST_TAG = (1 << 31) - 1  # tags are of 31 bits; no message has this one


class TorchBackend(ABC):
    """Of one process, for any number of groups. All but the making of buffers may block."""

    in_order: bool  # operations of a group are matched by their order, not by their tags

    def __init__(self, host: str, timeout_s: float) -> None:
        self.host, self.timeout = host, timedelta(seconds=timeout_s)

    @abstractmethod
    def make_buffers(self, num_buffers: int, buffer_bytes: int) -> "TensorBuffers":
        """Buffers whose `tensor`s can be sent and received, after `upload` and before `download`."""

    @abstractmethod
    def make_group(self, store: Store, rank: int) -> ProcessGroup:
        """Rank 0 or 1 of a group of two, which the other one makes too."""

    @abstractmethod
    def close_group(self, group: ProcessGroup) -> None:
        """End all of a group's operations with an error: when this returns, they do not touch their memory any more."""


class HostBuffers(Buffers):
    """Buffers in host memory, as tensors."""

    def tensor(self, index: int, num_bytes: int) -> torch.Tensor:
        """The first `num_bytes` bytes of a buffer (uint8), not copied."""
        return torch.from_numpy(self.view(index, num_bytes))


class Gloo(TorchBackend):
    """TCP between `host`s. All groups of a process share one listening socket and one thread that reads and writes."""

    in_order = False

    def __init__(self, host: str, timeout_s: float) -> None:
        super().__init__(host, timeout_s)
        self._device = torch.distributed.ProcessGroupGloo.create_device(hostname=host)

    def make_buffers(self, num_buffers: int, buffer_bytes: int) -> HostBuffers:
        return HostBuffers(num_buffers, buffer_bytes)

    def make_group(self, store: Store, rank: int) -> ProcessGroup:
        options = torch.distributed.ProcessGroupGloo._Options()  # type: ignore[attr-defined]  # torch's types lack it
        options._devices, options._timeout = [self._device], self.timeout
        options._threads = 0  # they work on collective operations only
        return torch.distributed.ProcessGroupGloo(store, rank, 2, options)  # type: ignore[return-value]  # it is one

    def close_group(self, group: ProcessGroup) -> None:
        # Its `abort` does nothing (torch 2.13). But once any operation of a group has timed out, gloo closes the group's
        # connections, tells all operations that wait, and reads and writes their memory no more (gloo/transport/tcp/pair.cc).
        with contextlib.suppress(RuntimeError):
            nothing = torch.empty(1, dtype=torch.uint8)
            group.recv([nothing], 1 - group.rank(), LAST_TAG).wait(timedelta(milliseconds=1))


class Nccl(TorchBackend):
    """Between GPUs, one for each process: NCCL refuses two ranks on one card."""

    in_order = True

    def __init__(self, host: str, timeout_s: float) -> None:
        super().__init__(host, timeout_s)
        if not torch.distributed.is_nccl_available() or not torch.cuda.is_available():
            raise TransferError(
                f"transfer=nccl needs a GPU and a torch with NCCL, which {host} has not; choose another transfer"
            )
        # Otherwise torch ends the whole process when an operation fails; here the group is closed and another one made.
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")

    def make_buffers(self, num_buffers: int, buffer_bytes: int) -> "TensorBuffers":
        from emu.transfer.cuda_buffers import CudaBuffers

        return CudaBuffers(num_buffers, buffer_bytes)

    def make_group(self, store: Store, rank: int) -> ProcessGroup:
        options = torch.distributed.ProcessGroupNCCL.Options()
        options._timeout = self.timeout
        return torch.distributed.ProcessGroupNCCL(store, rank, 2, options)  # type: ignore[return-value]  # it is one

    def close_group(self, group: ProcessGroup) -> None:
        group.abort()


BACKENDS: dict[str, type[TorchBackend]] = {"gloo": Gloo, "nccl": Nccl}
