"""Each machine of a pool in turn."""

from collections.abc import Sequence as Seq

from emu.core.placement.policy import place_by
from emu.core.pools import MachineLoad, Pool, Pools
from emu.core.request import Request


class RoundRobin:
    """Each pool is taken in order of index, from the machine after the last one chosen in it."""

    def __init__(self) -> None:
        self._last: dict[Pool, int] = {}

    def place(self, request: Request, pools: Pools) -> tuple[MachineLoad, MachineLoad]:
        return place_by(self._choose, pools)

    def _choose(self, machines: Seq[MachineLoad]) -> MachineLoad:
        pool = machines[0].pool
        last = self._last.get(pool, -1)
        chosen = next((machine for machine in machines if machine.index > last), machines[0])
        self._last[pool] = chosen.index
        return chosen
