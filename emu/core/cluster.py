"""The cluster as configured, and how its state machines are made: always fresh, so that any runtime can make its own."""

import copy
from dataclasses import dataclass
from typing import Any

from emu.core import setting
from emu.core.batching.policy import BatchingPolicy
from emu.core.machine_kind import MachineKind, MachineSpec, MachineState
from emu.core.network import Network
from emu.core.placement.policy import PlacementPolicy
from emu.core.pools import MachineLoad
from emu.core.repurposing import RepurposingPolicy
from emu.core.scheduler import Scheduler
from emu.core.specs import ModelSpec
from emu.core.timing.provenance import Provenance


@dataclass(frozen=True, slots=True)
class Cluster:
    """Everything that decides, as configured. Raises SettingError where `placement` needs machines of another kind, or the
    model's layers are no whole number of pieces.

    Each control message is under way for `control_latency_s`, and machines report their load every `report_period_s` (0: at
    once). KV caches of batches of `layerwise_min_tokens` tokens or more leave layer by layer (`inf`: none do),
    `layers_per_piece` at a time. With `contention` transfers share the machines' NICs.

    `timing` says where the times of the machines come from; None, for machines made by hand, says nothing.
    """

    model: ModelSpec
    machines: tuple[MachineSpec, ...]
    kind: MachineKind
    placement: PlacementPolicy
    batching: BatchingPolicy
    repurposing: RepurposingPolicy
    control_latency_s: float
    report_period_s: float
    layerwise_min_tokens: float
    contention: bool
    layers_per_piece: int = 1
    timing: Provenance | None = None

    def __post_init__(self) -> None:
        needed: Any = getattr(self.placement, "load_type", MachineLoad)
        if not issubclass(self.kind.load_type, needed):
            raise setting.SettingError(f"placement={needed.machine_option} needs machine={needed.machine_option}")
        num_layers = self.model.num_layers
        if num_layers % self.layers_per_piece:
            divisors = ", ".join(str(number) for number in range(1, num_layers + 1) if num_layers % number == 0)
            raise setting.SettingError(
                f"transfer.layers_per_piece={self.layers_per_piece}: expected a divisor of {self.model.name}'s "
                f"{num_layers} layers: {divisors}"
            )

    @property
    def num_pieces(self) -> int:
        """In how many equal pieces a KV cache leaves, layer by layer."""
        return self.model.num_layers // self.layers_per_piece

    def make_scheduler(self) -> Scheduler:
        loads = [self.kind.make_load(spec, self.model) for spec in self.machines]
        policies = copy.deepcopy((self.placement, self.repurposing))
        return self.kind.scheduler_type(loads, *policies, self.report_period_s)

    def make_machine(self, index: int) -> MachineState:
        plan = (self.layerwise_min_tokens, self.num_pieces)
        return self.kind.make_machine(self.machines[index], self.model, self.batching, *plan)

    def make_network(self) -> Network:
        hardware = [spec.hardware for spec in self.machines]
        nics = ([spec.nic_bytes_per_s for spec in hardware], [spec.link_latency_s for spec in hardware])
        return Network(*nics, self.contention)
