"""What the scheduler asks its placement policy, and the shape that most policies share."""

from collections.abc import Callable
from typing import Protocol

from emu.core.pools import DECODE_POOLS, PREFILL_POOLS, MachineLoad, Pool, Pools
from emu.core.request import Request


class PlacementPolicy(Protocol):
    """Chooses both machines of a request when it arrives or starts again."""

    def place(self, request: Request, pools: Pools) -> tuple[MachineLoad, MachineLoad]:
        """Return the machine that prefills and the one that decodes; at least one machine is alive.

        A machine chosen for the opposite of its home's work is moved into the mixed pool by the scheduler.
        """
        ...


def place_by(choose: Callable[[Pool], MachineLoad | None], pools: Pools) -> tuple[MachineLoad, MachineLoad]:
    """Choose in the pool of each phase; a machine that serves both phases keeps its request."""
    prefill_on = choose(pools.first_alive(PREFILL_POOLS))
    assert prefill_on is not None  # such a pool has a machine, and below
    decode_pool = pools.first_alive(DECODE_POOLS)
    if prefill_on.home is Pool.MIXED or prefill_on.pool is decode_pool:
        return prefill_on, prefill_on
    decode_on = choose(decode_pool)
    assert decode_on is not None
    return prefill_on, decode_on
