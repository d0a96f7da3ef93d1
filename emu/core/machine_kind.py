"""What a machine is, and how its two halves are made: the state machine itself and what the scheduler keeps of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from emu.core.batching.policy import BatchingPolicy
from emu.core.message import Message
from emu.core.messages import KVReady
from emu.core.pools import MachineLoad, Role
from emu.core.scheduler import Scheduler
from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing.model import TimingModel


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """One machine: its index in the cluster, its name (p0, d1, m2), what it was bought for and how fast it is."""

    index: int
    name: str
    role: Role
    hardware: HardwareSpec
    num_kv_blocks: int
    timing: TimingModel


class Capacity(NamedTuple):
    """The largest request, in tokens, that a machine can serve while it has nothing else.

    `prompt_tokens` bounds every prompt that it accepts, `handed_over_tokens` one that it prefills for a decode elsewhere, and
    `total_tokens` the prompt and output of a request that it decodes.
    """

    prompt_tokens: int
    handed_over_tokens: int
    total_tokens: int


class PulledRequest(Protocol):
    """A request as its destination knows it: so many of its output tokens are out when its KV cache is complete."""

    num_generated: int


class MachineState(Protocol):
    """The state machine of machine `index`. `pulling` are the requests whose KV caches are on their way to it."""

    index: int
    pulling: Mapping[int, PulledRequest]

    def handle(self, event: Message, now_s: float) -> list[Message]:
        """Take one event and return what is to be done, in order."""
        ...

    def would_pull(self, event: KVReady) -> bool:
        """Whether this hand-over, if it were offered now, would get its memory at once."""
        ...


class MachineKind(Protocol):
    """What every `conf/machine/*.yaml` describes: how the machines of a cluster manage their memory and their work.

    Beside them goes a scheduler of `scheduler_type`, which keeps loads of `load_type`. A kind that `wants_oracle` has
    `consult(oracle: OutputOracle) -> MachineKind`, which gives the kind that is then asked.
    """

    wants_oracle: ClassVar[bool]
    load_type: ClassVar[type[MachineLoad]]
    scheduler_type: ClassVar[type[Scheduler]]

    def spec(
        self, index: int, name: str, role: Role, hardware: HardwareSpec, model: ModelSpec, timing: TimingModel
    ) -> MachineSpec:
        """The machine of this hardware. Raises SpecError where the model does not fit it."""
        ...

    def make_machine(
        self, spec: MachineSpec, model: ModelSpec, batching: BatchingPolicy, layerwise_min_tokens: float, num_pieces: int
    ) -> MachineState:
        """See `Cluster` for the last two."""
        ...

    def capacity(self, hardware: HardwareSpec, model: ModelSpec) -> Capacity:
        """The largest requests that a machine of this hardware can serve. Raises SpecError where the model does not fit it."""
        ...

    def make_load(self, spec: MachineSpec, model: ModelSpec) -> MachineLoad:
        """What the scheduler keeps of the machine."""
        ...
