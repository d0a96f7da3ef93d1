"""Machines that keep KV caches in blocks and know no output length: those of an inference engine."""

import copy
from typing import ClassVar

from emu.core import setting
from emu.core.batching.policy import BatchingPolicy
from emu.core.handover import Handover
from emu.core.kv_cache import KVCache
from emu.core.machine import Machine, max_held_blocks
from emu.core.machine_kind import Capacity, MachineSpec
from emu.core.pools import MachineLoad, Role
from emu.core.scheduler import Scheduler
from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing.model import TimingModel


class PagedMachines:
    """`Machine`s with blocks of `block_tokens` tokens; see `KVCache` for `watermark`, `Machine` for `max_held_fraction`."""

    wants_oracle: ClassVar[bool] = False
    load_type: ClassVar[type[MachineLoad]] = MachineLoad
    scheduler_type: ClassVar[type[Scheduler]] = Scheduler

    def __init__(self, block_tokens: int, watermark: float, max_held_fraction: float) -> None:
        self.block_tokens = setting.whole("machine.block_tokens", block_tokens, 1, 2**20)
        self.watermark = setting.between("machine.watermark", watermark, 0, 1)
        self.max_held_fraction = setting.between("machine.max_held_fraction", max_held_fraction, 0, 1)

    def spec(
        self, index: int, name: str, role: Role, hardware: HardwareSpec, model: ModelSpec, timing: TimingModel
    ) -> MachineSpec:
        num_kv_blocks = hardware.num_kv_blocks(model, self.block_tokens)
        return MachineSpec(index, name, role, hardware, num_kv_blocks, timing)

    def make_machine(
        self, spec: MachineSpec, model: ModelSpec, batching: BatchingPolicy, layerwise_min_tokens: float, num_pieces: int
    ) -> Machine:
        kv = KVCache(spec.num_kv_blocks, self.block_tokens, self.watermark)
        handover = Handover(model.kv_bytes_per_token, num_pieces, spec.timing, layerwise_min_tokens)
        return Machine(spec.index, kv, copy.deepcopy(batching), handover, self.max_held_fraction)

    def capacity(self, hardware: HardwareSpec, model: ModelSpec) -> Capacity:
        num_blocks = hardware.num_kv_blocks(model, self.block_tokens)
        num_tokens = num_blocks * self.block_tokens
        held_tokens = max_held_blocks(self.max_held_fraction, num_blocks) * self.block_tokens
        # The last output token is never cached, and a decode holds a slot for the next: see `Machine` and `KVCache`.
        return Capacity(num_tokens - 1, min(held_tokens, num_tokens - 1), num_tokens + 1)

    def make_load(self, spec: MachineSpec, model: ModelSpec) -> MachineLoad:
        return MachineLoad(spec.index, spec.role, spec.num_kv_blocks * self.block_tokens)
