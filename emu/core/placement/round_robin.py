"""Each machine of a pool in turn."""

from bisect import bisect_right
from operator import attrgetter

from emu.core.placement.policy import place_by
from emu.core.pools import MachineLoad, Pool, Pools
from emu.core.request import Request


class RoundRobin:
    """Each pool is taken in order of index, from the machine after the last one chosen in it."""

    def __init__(self) -> None:
        self._last: dict[Pool, int] = {}

    def place(self, request: Request, pools: Pools) -> tuple[MachineLoad, MachineLoad]:
        return place_by(lambda pool: self._next(pool, pools[pool]), pools)

    def _next(self, pool: Pool, machines: list[MachineLoad]) -> MachineLoad:
        after_last = bisect_right(machines, self._last.get(pool, -1), key=attrgetter("index"))
        chosen = machines[after_last % len(machines)]
        self._last[pool] = chosen.index
        return chosen
