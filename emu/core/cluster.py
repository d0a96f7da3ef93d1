"""The cluster as configured, and how its state machines are made: always fresh, so that any runtime can make its own."""

from dataclasses import dataclass

from emu.core.batching.policy import BatchingPolicy
from emu.core.machine_kind import MachineKind, MachineSpec, MachineState
from emu.core.network import Network
from emu.core.placement.policy import PlacementPolicy
from emu.core.scheduler import Scheduler
from emu.core.specs import ModelSpec


@dataclass(frozen=True, slots=True)
class Cluster:
    """Everything that decides, as configured. `control_latency_s` is how long each control message is under way.

    KV caches of batches of `layerwise_min_tokens` tokens or more leave layer by layer (`inf`: none do).
    With `contention` transfers share the machines' NICs.
    """

    model: ModelSpec
    machines: tuple[MachineSpec, ...]
    kind: MachineKind
    placement: PlacementPolicy
    batching: BatchingPolicy
    control_latency_s: float
    layerwise_min_tokens: float
    contention: bool = True

    def make_scheduler(self) -> Scheduler:
        return self.kind.make_scheduler(self.machines, self.model, self.placement)

    def make_machine(self, index: int) -> MachineState:
        return self.kind.make_machine(self.machines[index], self.model, self.batching, self.layerwise_min_tokens)

    def make_network(self) -> Network:
        hardware = [spec.hardware for spec in self.machines]
        nics = ([spec.nic_bytes_per_s for spec in hardware], [spec.link_latency_s for spec in hardware])
        return Network(*nics, self.contention)
