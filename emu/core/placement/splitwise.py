"""Splitwise's cluster-level scheduling (SPLITWISE.md §4): shortest queues, with a mixed pool that takes the overflow."""

from emu.core import setting
from emu.core.pools import DECODE_POOLS, PREFILL_POOLS, MachineLoad, Pool, Pools
from emu.core.request import Request


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
        prefill_on = self._prompt_machine(num_tokens, pools)
        if prefill_on.home is Pool.MIXED and not pools[Pool.TOKEN]:
            return prefill_on, prefill_on  # a colocated cluster: nothing to hand over
        return prefill_on, self._token_machine(num_tokens, pools)

    def _prompt_machine(self, num_tokens: int, pools: Pools) -> MachineLoad:
        fullest = None
        for pool in PREFILL_POOLS:
            if (machine := pools.least(pool, "pending_tokens")) is not None:
                pending = machine.pending_prompt_tokens
                if not pending or pending + num_tokens <= self.max_pending_prompt_tokens:
                    return machine
                fullest = fullest or machine
        assert fullest is not None  # at least one machine is alive
        return fullest

    def _token_machine(self, num_tokens: int, pools: Pools) -> MachineLoad:
        fullest = None
        for pool in DECODE_POOLS:
            if (machine := pools.least(pool, "kv_tokens")) is not None:
                if machine.kv_tokens + num_tokens + 1 <= self.max_kv_fraction * machine.kv_capacity_tokens:
                    return machine
                fullest = fullest or machine
        assert fullest is not None  # at least one machine is alive
        return fullest
