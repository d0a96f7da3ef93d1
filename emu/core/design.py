"""Cluster designs: how many machines of which hardware do which work."""

from abc import ABC, abstractmethod

from emu.core import setting
from emu.core.batching.policy import BatchingPolicy
from emu.core.cluster import Cluster, MachineSpec
from emu.core.placement.policy import PlacementPolicy
from emu.core.pools import Role
from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing.family import TimingFamily

MAX_NUM_MACHINES = 10_000


class ClusterDesign(ABC):
    """What every `conf/cluster/*.yaml` describes: machines, and how each manages its KV memory (see `KVCache`, `Machine`)."""

    def __init__(self, block_tokens: int, watermark: float, max_held_fraction: float) -> None:
        self.block_tokens = setting.whole("cluster.block_tokens", block_tokens, 1, 2**20)
        self.watermark = setting.between("cluster.watermark", watermark, 0, 1)
        self.max_held_fraction = setting.between("cluster.max_held_fraction", max_held_fraction, 0, 1)

    @abstractmethod
    def machines(self) -> list[tuple[str, Role, HardwareSpec]]:
        """Name, role and hardware of each machine, in order of index."""

    def build(
        self,
        model: ModelSpec,
        timing: TimingFamily,
        placement: PlacementPolicy,
        batching: BatchingPolicy,
        control_latency_s: float,
        layerwise_min_tokens: float,
    ) -> Cluster:
        """The cluster that serves `model`. Raises SpecError or TimingError where its hardware cannot."""
        machines, timings = [], {}  # machines that are alike share one timing model
        for index, (name, role, hardware) in enumerate(self.machines()):
            num_kv_blocks = hardware.num_kv_blocks(model, self.block_tokens)
            if hardware not in timings:
                timings[hardware] = timing.for_machine(model, hardware)
            machines.append(MachineSpec(index, name, role, hardware, num_kv_blocks, timings[hardware]))
        memory = (self.block_tokens, self.watermark, self.max_held_fraction)
        return Cluster(model, tuple(machines), placement, batching, *memory, control_latency_s, layerwise_min_tokens)


class SplitwiseDesign(ClusterDesign):
    """Prompt machines p0, p1, ... prefill and token machines d0, d1, ... decode, each kind of its own hardware."""

    def __init__(
        self,
        num_prompt: int,
        num_token: int,
        prompt_hardware: HardwareSpec,
        token_hardware: HardwareSpec,
        block_tokens: int,
        watermark: float,
        max_held_fraction: float,
    ) -> None:
        super().__init__(block_tokens, watermark, max_held_fraction)
        self.num_prompt = setting.whole("cluster.num_prompt", num_prompt, 1, MAX_NUM_MACHINES)
        self.num_token = setting.whole("cluster.num_token", num_token, 1, MAX_NUM_MACHINES)
        self.prompt_hardware = prompt_hardware
        self.token_hardware = token_hardware

    def machines(self) -> list[tuple[str, Role, HardwareSpec]]:
        prompt = [(f"p{i}", Role.PREFILL, self.prompt_hardware) for i in range(self.num_prompt)]
        return prompt + [(f"d{i}", Role.DECODE, self.token_hardware) for i in range(self.num_token)]


class BaselineDesign(ClusterDesign):
    """Machines m0, m1, ... that all prefill and decode: the colocated baseline."""

    def __init__(
        self, num_machines: int, hardware: HardwareSpec, block_tokens: int, watermark: float, max_held_fraction: float
    ) -> None:
        super().__init__(block_tokens, watermark, max_held_fraction)
        self.num_machines = setting.whole("cluster.num_machines", num_machines, 1, MAX_NUM_MACHINES)
        self.hardware = hardware

    def machines(self) -> list[tuple[str, Role, HardwareSpec]]:
        return [(f"m{i}", Role.MIXED, self.hardware) for i in range(self.num_machines)]
