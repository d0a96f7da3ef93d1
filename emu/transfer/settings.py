"""How KV caches are moved, as configured: one class for each transport, with what it needs to be told."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

from emu.core import setting
from emu.install import install_command

if TYPE_CHECKING:
    from emu.transfer.transport import Transport

MAX_BUFFER_BYTES = 1 << 30


class TransferError(ValueError):
    """A transfer setting that cannot be used. The text is for the user."""


class MissingTransport(TransferError, setting.MissingExtra):
    """A transport whose library is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSettings(ABC):
    """What every `conf/transfer/*.yaml` describes.

    `payload_scale` is the fraction of the true KV bytes that is really moved, from 0 to 1. `auto` is what this host, measured
    at start-up, moves without disturbing the run: see `choose_payload_scale`. Nothing moves under `virtual`.

    `layerwise_min_tokens`: the KV caches of a prefill step with so many tokens or more leave layer by layer while it runs,
    those of a smaller one when it is over (SPLITWISE.md §5); `inf`: all of them when it is over.

    `layers_per_piece`: layers that leave together, a divisor of the model's (which `Cluster` checks).

    `contention`: transfers of one machine share its NIC. Without, each has it to itself.

    The bytes of a payload go in messages of `min_message_bytes`, or as many as are left, to `max_message_bytes`, through
    `num_buffers` buffers of that size in each direction at each machine. A message that is not there `timeout_s` wall seconds
    after it could have been is asked for again, and so is one that is wrong; with the first time, `max_tries` times.
    """

    payload_scale: float | str
    layerwise_min_tokens: float
    layers_per_piece: int
    contention: bool
    min_message_bytes: int
    max_message_bytes: int
    num_buffers: int
    timeout_s: float
    max_tries: int

    name: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()  # the first of them that is installed is used
    extra: ClassVar[str] = ""  # of this project, that installs one

    def __post_init__(self) -> None:
        scale = self.payload_scale
        if scale != "auto" and (isinstance(scale, str | bool) or not 0 <= scale <= 1):
            raise TransferError(f"transfer.payload_scale={scale}: expected auto or a number from 0 to 1")
        setting.positive_or_inf("transfer.layerwise_min_tokens", self.layerwise_min_tokens)
        setting.whole("transfer.layers_per_piece", self.layers_per_piece, 1)
        setting.flag("transfer.contention", self.contention)
        setting.whole("transfer.max_message_bytes", self.max_message_bytes, 4096, MAX_BUFFER_BYTES)
        if self.max_message_bytes % 4096:
            raise TransferError(f"transfer.max_message_bytes={self.max_message_bytes}: expected whole pages of 4096")
        setting.whole("transfer.min_message_bytes", self.min_message_bytes, 1, self.max_message_bytes)
        setting.whole("transfer.num_buffers", self.num_buffers, 1, 1024)
        setting.seconds("transfer.timeout_s", self.timeout_s)
        setting.whole("transfer.max_tries", self.max_tries, 1, 100)

    @property
    def needs_gpu(self) -> bool:
        """Whether messages go through GPU memory."""
        return False

    def check(self, num_machines: int = 0) -> None:
        """Raises TransferError where this environment lacks what the transport needs, or this host what `num_machines` need.

        0 where the machines are elsewhere.
        """
        if self.modules and not any(find_spec(module) for module in self.modules):
            raise MissingTransport(
                f"transfer={self.name} needs {' or '.join(self.modules)}, which is not installed; "
                f"{install_command(self.extra)}, or choose another transfer",
                self.extra,
            )
        if num_machines and self.needs_gpu:
            self._check_gpus(_num_gpus(), num_machines)

    def _check_gpus(self, num_gpus: int, num_machines: int) -> None:
        if not num_gpus:
            raise TransferError(f"transfer={self.name} needs a GPU, which this host has not; choose another transfer")

    @abstractmethod
    def make(self, host: str) -> "Transport":
        """This process's end of the transport; `host` is the address that others reach this one by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStoreSettings(TransferSettings):
    """Through Ray's object store."""

    name: ClassVar[str] = "object_store"

    def make(self, host: str) -> "Transport":
        from emu.transfer.object_store import ObjectStore

        return ObjectStore(self.num_buffers, self.max_message_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchDistributedSettings(TransferSettings):
    """By torch.distributed's point-to-point operations; `backend` is gloo (CPU memory) or nccl (GPU memory)."""

    backend: str

    modules: ClassVar[tuple[str, ...]] = ("torch",)
    extra: ClassVar[str] = "torch"

    def __post_init__(self) -> None:
        super(TorchDistributedSettings, self).__post_init__()
        setting.one_of("transfer.backend", self.backend, ("gloo", "nccl"))

    @property
    def name(self) -> str:  # type: ignore[override]  # of the object: two transports are one class
        return self.backend

    @property
    def needs_gpu(self) -> bool:
        return self.backend == "nccl"

    def _check_gpus(self, num_gpus: int, num_machines: int) -> None:
        super(TorchDistributedSettings, self)._check_gpus(num_gpus, num_machines)
        if num_gpus < num_machines:  # NCCL refuses two ranks on one card
            raise TransferError(
                f"transfer=nccl needs a GPU for each of the {num_machines} machines, and this host has {num_gpus}; "
                "choose another transfer"
            )

    def make(self, host: str) -> "Transport":
        from emu.transfer.torch_distributed import TorchDistributed

        return TorchDistributed(self.backend, host, self.num_buffers, self.max_message_bytes, self.timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class NixlSettings(TransferSettings):
    """By NIXL over UCX: one-sided reads from registered memory of `device` (cpu or cuda).

    A message is read by descriptors of `descriptor_bytes` each.
    """

    device: str
    descriptor_bytes: int

    name: ClassVar[str] = "nixl"
    modules: ClassVar[tuple[str, ...]] = ("nixl_cu13", "nixl_cu12")
    extra: ClassVar[str] = "nixl"

    def __post_init__(self) -> None:
        super(NixlSettings, self).__post_init__()
        setting.one_of("transfer.device", self.device, ("cpu", "cuda"))
        setting.whole("transfer.descriptor_bytes", self.descriptor_bytes, 64, MAX_BUFFER_BYTES)

    @property
    def needs_gpu(self) -> bool:
        return self.device == "cuda"

    def _check_gpus(self, num_gpus: int, num_machines: int) -> None:
        if not num_gpus:
            raise TransferError("transfer.device=cuda: this host has no GPU; expected cpu")

    def make(self, host: str) -> "Transport":
        from emu.transfer.nixl import Nixl

        return Nixl(self.device, self.descriptor_bytes, self.num_buffers, self.max_message_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaIpcSettings(TransferSettings):
    """Between processes of one node, by copies from GPU memory that the source has exported."""

    name: ClassVar[str] = "cuda_ipc"
    modules: ClassVar[tuple[str, ...]] = ("torch",)
    extra: ClassVar[str] = "torch"
    needs_gpu: ClassVar[bool] = True

    def make(self, host: str) -> "Transport":
        from emu.transfer.cuda_ipc import CudaIpc

        return CudaIpc(self.num_buffers, self.max_message_bytes)


def _num_gpus() -> int:
    """How many GPUs torch sees on this host."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
