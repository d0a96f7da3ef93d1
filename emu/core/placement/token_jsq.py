"""Join the shortest queue, in tokens."""

from emu.core.placement.policy import place_by
from emu.core.pools import MachineLoad, Pools
from emu.core.request import Request


class TokenJsq:
    """Each phase goes to the machine of its pool with the fewest pending tokens; ties to the lowest index."""

    def place(self, request: Request, pools: Pools) -> tuple[MachineLoad, MachineLoad]:
        return place_by(lambda pool: pools.least(pool, "pending_tokens"), pools)
