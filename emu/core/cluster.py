"""The cluster as configured, and how its state machines are made: always fresh, so that any runtime can make its own."""

import copy
from dataclasses import dataclass

from emu.core.batching.policy import BatchingPolicy
from emu.core.handover import Handover
from emu.core.kv_cache import KVCache
from emu.core.machine import Machine
from emu.core.network import Network
from emu.core.placement.policy import PlacementPolicy
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


@dataclass(frozen=True, slots=True)
class Cluster:
    """Everything that decides, as configured. `control_latency_s` is how long each control message is under way.

    KV caches of batches of `layerwise_min_tokens` tokens or more leave layer by layer (`inf`: none do).
    """

    model: ModelSpec
    machines: tuple[MachineSpec, ...]
    placement: PlacementPolicy
    batching: BatchingPolicy
    block_tokens: int
    watermark: float
    max_held_fraction: float
    control_latency_s: float
    layerwise_min_tokens: float

    def make_scheduler(self) -> Scheduler:
        loads = [MachineLoad(spec.index, spec.role, spec.num_kv_blocks * self.block_tokens) for spec in self.machines]
        return Scheduler(loads, copy.deepcopy(self.placement))

    def make_machine(self, index: int) -> Machine:
        spec, model = self.machines[index], self.model
        kv = KVCache(spec.num_kv_blocks, self.block_tokens, self.watermark)
        handover = Handover(model.kv_bytes_per_token, model.num_layers, spec.timing, self.layerwise_min_tokens)
        return Machine(index, kv, copy.deepcopy(self.batching), handover, self.max_held_fraction)

    def make_network(self) -> Network:
        hardware = [spec.hardware for spec in self.machines]
        return Network([spec.nic_bytes_per_s for spec in hardware], [spec.link_latency_s for spec in hardware])
