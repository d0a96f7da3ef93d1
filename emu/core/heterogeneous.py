"""A cluster whose pools mix machines of different hardware."""

from collections.abc import Mapping
from typing import Any

from emu.core import setting
from emu.core.design import MAX_NUM_MACHINES, ClusterDesign
from emu.core.pools import Role
from emu.core.specs import HardwareSpec

PREFIX = {Role.PREFILL: "p", Role.DECODE: "d", Role.MIXED: "m"}
KEYS = ("role", "hardware", "count")


class HeterogeneousDesign(ClusterDesign):
    """`machines`: groups `{role, hardware, count}` of machines that are alike, in order; `hardware` names one of `hardware`.

    A role may have several groups; its machines are numbered through: p0, p1, ... prefill, d0, d1, ... decode and m0, m1,
    ... do both. Raises SettingError for a group that is wrong, or where no machine is there for one of the phases.
    """

    def __init__(self, machines: list, hardware: dict[str, HardwareSpec]) -> None:  # type: ignore[type-arg]  # as YAML has it
        for name, spec in hardware.items():
            if not isinstance(spec, HardwareSpec):
                raise setting.SettingError(f"cluster.hardware.{name}={spec}: expected an option of hardware")
        self.groups = [_group(f"cluster.machines[{i}]", group, hardware) for i, group in enumerate(machines)]
        roles = {role for role, _, _ in self.groups}
        for phase in (Role.PREFILL, Role.DECODE):
            if not roles & {phase, Role.MIXED}:
                raise setting.SettingError(f"cluster.machines: no machine to {phase}; expected one of role {phase} or mixed")
        setting.whole("the sum of cluster.machines' counts", sum(count for *_, count in self.groups), 1, MAX_NUM_MACHINES)

    def machines(self) -> list[tuple[str, Role, HardwareSpec]]:
        named, num_of = [], dict.fromkeys(Role, 0)
        for role, hardware, count in self.groups:
            named += [(f"{PREFIX[role]}{num_of[role] + i}", role, hardware) for i in range(count)]
            num_of[role] += count
        return named


def _group(place: str, group: Any, hardware: Mapping[str, HardwareSpec]) -> tuple[Role, HardwareSpec, int]:
    if not isinstance(group, Mapping) or set(group) != set(KEYS):
        raise setting.SettingError(f"{place}={group}: expected {{role: ROLE, hardware: NAME, count: NUMBER}}")
    role = Role(setting.one_of(f"{place}.role", group["role"], tuple(Role)))
    name = setting.one_of(f"{place}.hardware", group["hardware"], tuple(hardware))
    return role, hardware[name], setting.whole(f"{place}.count", group["count"], 1, MAX_NUM_MACHINES)
