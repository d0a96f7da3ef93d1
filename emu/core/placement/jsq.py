"""Join the shortest queue, in requests."""

from emu.core.placement.policy import place_by
from emu.core.pools import MachineLoad, Pools
from emu.core.request import Request


class Jsq:
    """Each phase goes to the machine of its pool with the fewest requests assigned; ties to the lowest index."""

    def place(self, request: Request, pools: Pools) -> tuple[MachineLoad, MachineLoad]:
        return place_by(lambda pool: pools.least(pool, "num_requests"), pools)
