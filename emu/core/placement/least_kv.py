"""Least KV memory: decodes go where the least of the KV cache is taken."""

from emu.core.placement.policy import place_by
from emu.core.pools import DECODE_POOLS, MachineLoad, Pools
from emu.core.request import Request


class LeastKV:
    """Prompts go to the machine of their pool with the fewest pending tokens, decodes to the one with the least share of its
    KV cache taken by contexts; a machine that does both is chosen by its KV cache. Ties to the lowest index."""

    def place(self, request: Request, pools: Pools) -> tuple[MachineLoad, MachineLoad]:
        decode_pool = pools.first_alive(DECODE_POOLS)
        return place_by(lambda pool: pools.least(pool, "kv_share" if pool is decode_pool else "pending_tokens"), pools)
