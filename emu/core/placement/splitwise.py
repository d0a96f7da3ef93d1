"""Splitwise's cluster-level scheduling (SPLITWISE.md §4): shortest queues, with a mixed pool that takes the overflow."""

from collections.abc import Callable
from collections.abc import Sequence as Seq
from operator import attrgetter

from emu.core import setting
from emu.core.pools import MachineLoad, Pool, Pools
from emu.core.request import Request

_pending_tokens = attrgetter("pending_tokens")
_kv_tokens = attrgetter("kv_tokens")


class Splitwise:
    """Both machines are chosen at arrival, so that the transfer can be prepared.

    The prompt machine is the one of the prompt pool with the fewest pending tokens, unless it has a queue and this prompt
    would take it beyond `max_pending_prompt_tokens`; then the mixed pool is asked, then the token pool. The token machine
    is the one of the token pool with the fewest context tokens, unless `max_kv_fraction` of its KV cache would be exceeded;
    then the mixed pool, then the prompt pool. If every pool is full, the best machine of the own pool queues it.
    """

    def __init__(self, max_pending_prompt_tokens: int, max_kv_fraction: float) -> None:
        self.max_pending_prompt_tokens = setting.whole("placement.max_pending_prompt_tokens", max_pending_prompt_tokens, 1)
        self.max_kv_fraction = setting.between("placement.max_kv_fraction", max_kv_fraction, 0, 1)

    def place(self, request: Request, pools: Pools) -> tuple[MachineLoad, MachineLoad]:
        num_tokens = request.prefill_tokens

        def takes_prompt(machine: MachineLoad) -> bool:
            pending = machine.pending_prompt_tokens
            return not pending or pending + num_tokens <= self.max_pending_prompt_tokens

        def takes_decode(machine: MachineLoad) -> bool:
            return machine.kv_tokens + num_tokens + 1 <= self.max_kv_fraction * machine.kv_capacity_tokens

        prompt_pools = [pools[Pool.PROMPT], pools[Pool.MIXED], pools[Pool.TOKEN]]
        token_pools = [pools[Pool.TOKEN], pools[Pool.MIXED], pools[Pool.PROMPT]]
        prefill_on = _first_taker(prompt_pools, _pending_tokens, takes_prompt)
        if prefill_on.home is Pool.MIXED and not pools[Pool.TOKEN]:
            return prefill_on, prefill_on  # a colocated cluster: nothing to hand over
        return prefill_on, _first_taker(token_pools, _kv_tokens, takes_decode)


def _first_taker(
    pools: list[Seq[MachineLoad]], load: Callable[[MachineLoad], int], takes: Callable[[MachineLoad], bool]
) -> MachineLoad:
    """The least loaded machine of the first pool where that one takes the work, else of the first pool that has any."""
    fullest = None
    for pool in pools:
        if pool:
            best = min(pool, key=load)
            if takes(best):
                return best
            fullest = fullest or best
    return fullest
