"""Cluster designs: how many machines of which hardware do which work."""

from abc import ABC, abstractmethod

from emu.core import setting
from emu.core.machine_kind import MachineKind, MachineSpec
from emu.core.pools import Role
from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing.family import TimingFamily

MAX_NUM_MACHINES = 10_000


class ClusterDesign(ABC):
    """What every `conf/cluster/*.yaml` describes: the machines of a cluster."""

    @abstractmethod
    def machines(self) -> list[tuple[str, Role, HardwareSpec]]:
        """Name, role and hardware of each machine, in order of index."""

    def build(self, model: ModelSpec, timing: TimingFamily, kind: MachineKind) -> tuple[MachineSpec, ...]:
        """The machines, of this `kind`, to serve `model`. Raises SpecError or TimingError where its hardware cannot."""
        specs, timings = [], {}  # machines that are alike share one timing model
        for index, (name, role, hardware) in enumerate(self.machines()):
            if hardware not in timings:
                timings[hardware] = timing.for_machine(model, hardware)
            specs.append(kind.spec(index, name, role, hardware, model, timings[hardware]))
        return tuple(specs)


class SplitwiseDesign(ClusterDesign):
    """Prompt machines p0, p1, ... prefill and token machines d0, d1, ... decode, each kind of its own hardware."""

    def __init__(
        self,
        num_prompt: int,
        num_token: int,
        prompt_hardware: HardwareSpec,
        token_hardware: HardwareSpec,
    ) -> None:
        self.num_prompt = setting.whole("cluster.num_prompt", num_prompt, 1, MAX_NUM_MACHINES)
        self.num_token = setting.whole("cluster.num_token", num_token, 1, MAX_NUM_MACHINES)
        self.prompt_hardware = prompt_hardware
        self.token_hardware = token_hardware

    def machines(self) -> list[tuple[str, Role, HardwareSpec]]:
        prompt = [(f"p{i}", Role.PREFILL, self.prompt_hardware) for i in range(self.num_prompt)]
        return prompt + [(f"d{i}", Role.DECODE, self.token_hardware) for i in range(self.num_token)]


class BaselineDesign(ClusterDesign):
    """Machines m0, m1, ... that all prefill and decode: the colocated baseline."""

    def __init__(self, num_machines: int, hardware: HardwareSpec) -> None:
        self.num_machines = setting.whole("cluster.num_machines", num_machines, 1, MAX_NUM_MACHINES)
        self.hardware = hardware

    def machines(self) -> list[tuple[str, Role, HardwareSpec]]:
        return [(f"m{i}", Role.MIXED, self.hardware) for i in range(self.num_machines)]
