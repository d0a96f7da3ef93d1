"""The published simulator's choice of machines (SPLITWISE.md §9)."""

from operator import attrgetter
from typing import ClassVar

from emu.compat.splitwise_sim.load import SplitwiseSimLoad
from emu.core import setting
from emu.core.pools import MachineLoad, Pool, Pools
from emu.core.request import Request


class SplitwiseSim:
    """The published rules. They need the loads, and so the machines, of `machine=splitwise_sim`.

    The prompt machine is the one with the fewest pending tokens of the prompt pool, else of the mixed pool, unless it has a
    queue and this prompt would take that beyond `max_pending_tokens`. The token machine is the one with the least scheduled
    memory of the token pool, else of the mixed pool, if what the whole sequence needs leaves some of it. If there is no
    such prompt machine, the token machine with the fewest pending tokens is taken into the mixed pool, and the other way
    round the prompt machine with the least scheduled memory. If one is still missing, the machine with the fewest pending
    tokens of all does both, in the pool where it is. In a colocated cluster it always does.

    Ties go to the machine that has been longest in its pool, at first by index.
    """

    load_type: ClassVar[type[SplitwiseSimLoad]] = SplitwiseSimLoad

    def __init__(self, max_pending_tokens: int) -> None:
        self.max_pending_tokens = setting.whole("placement.max_pending_tokens", max_pending_tokens, 1)
        self.taken: list[MachineLoad] = []

    def place(self, request: Request, pools: Pools) -> tuple[MachineLoad, MachineLoad]:
        """As every policy, but that it says itself, in `taken`, which machines join the mixed pool."""
        self.taken = []
        if pools.is_colocated:
            machine = pools.least(Pool.MIXED, "by_queue")
            assert machine is not None  # at least one is alive
            return machine, machine
        prefill_on: MachineLoad | None = self._least_queue(request, pools)
        decode_on: MachineLoad | None = self._least_memory(request, pools)
        if prefill_on is None and (prefill_on := pools.least(Pool.TOKEN, "by_queue")) is not None:
            self.taken.append(prefill_on)
        if decode_on is None and (decode_on := pools.least(Pool.PROMPT, "by_memory")) is not None:
            self.taken.append(decode_on)
        if prefill_on is None or decode_on is None:
            prefill_on = decode_on = self._least_of_all(pools)
        return prefill_on, decode_on

    def _least_queue(self, request: Request, pools: Pools) -> SplitwiseSimLoad | None:
        for pool in (Pool.PROMPT, Pool.MIXED):
            machine = _least(pools, pool, "by_queue")
            if machine is not None:
                num_tokens = machine.pending_tokens + request.prefill_tokens
                if not machine.has_queue or num_tokens <= self.max_pending_tokens:
                    return machine
        return None

    def _least_memory(self, request: Request, pools: Pools) -> SplitwiseSimLoad | None:
        for pool in (Pool.TOKEN, Pool.MIXED):
            machine = _least(pools, pool, "by_memory")
            if machine is not None and machine.scheduled_bytes + machine.whole_bytes(request) < machine.memory_bytes:
                return machine
        return None

    def _least_of_all(self, pools: Pools) -> MachineLoad:
        """Ties to the prompt pool, then to the mixed one, where those just taken come last, then to the token pool."""
        order: list[MachineLoad] = []
        for pool in (Pool.PROMPT, Pool.MIXED, Pool.TOKEN):
            order += sorted((machine for machine in pools[pool] if machine not in self.taken), key=attrgetter("turn"))
            if pool is Pool.MIXED:
                order += self.taken
        return min(order, key=attrgetter("pending_tokens"))


def _least(pools: Pools, pool: Pool, figure: str) -> SplitwiseSimLoad | None:
    """As `Pools.least`. The cluster has loads of this policy's `load_type`."""
    machine = pools.least(pool, figure)
    assert machine is None or isinstance(machine, SplitwiseSimLoad)
    return machine
