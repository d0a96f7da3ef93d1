"""The published simulator's choice of machines, and what its scheduler counts of each (SPLITWISE.md §9)."""

from operator import attrgetter
from typing import ClassVar

from emu.core import setting
from emu.core.oracle import OutputOracle
from emu.core.pools import MachineLoad, Pool, Pools, Role
from emu.core.request import Phase, Request


class SplitwiseSimLoad(MachineLoad):
    """Adds what the published scheduler reads, exact and at once: memory by what is assigned, and whether anything waits.

    `scheduled_bytes` is the KV cache of what is assigned, out of `memory_bytes`: of a prompt and its first token until it
    has been handed over, of a whole sequence, which only the `oracle` knows, until its end. `num_present` counts the tasks
    that have come to the machine, `has_queue` whether one of them waits. `turn` orders a pool by when its members came.
    """

    machine_option: ClassVar[str] = "splitwise_sim"  # of the machines that keep such loads

    __slots__ = (
        "_kv_bytes_per_token",
        "_oracle",
        "_scheduled",
        "has_queue",
        "memory_bytes",
        "num_present",
        "scheduled_bytes",
        "turn",
    )

    def __init__(
        self, index: int, role: Role, kv_capacity_tokens: int, memory_bytes: int, kv_bytes_per_token: int, oracle: OutputOracle
    ) -> None:
        super().__init__(index, role, kv_capacity_tokens)
        self.memory_bytes = memory_bytes
        self.turn = index
        self.num_present = self.scheduled_bytes = 0
        self.has_queue = False
        self._kv_bytes_per_token = kv_bytes_per_token
        self._oracle = oracle
        self._scheduled: dict[tuple[int, int], int] = {}  # bytes by attempt: the end of one may be told when the next is here

    @property
    def by_queue(self) -> tuple[int, int]:
        return self.pending_tokens, self.turn

    @property
    def by_memory(self) -> tuple[int, int]:
        return self.scheduled_bytes, self.turn

    @property
    def can_go_home(self) -> bool:
        """Only wholly idle, whatever is on its way to it."""
        return not self.num_present

    def whole_bytes(self, request: Request) -> int:
        """The KV cache of the request at its end: its prompt and all output tokens."""
        return (request.prompt_tokens + self._oracle.output_tokens(request.request_id)) * self._kv_bytes_per_token

    def add_prefill(self, request: Request) -> None:
        super().add_prefill(request)
        self._arrived()
        if request.decode_on != self.index:
            self._schedule(request, (request.prefill_tokens + 1) * self._kv_bytes_per_token)

    def end_prefill(self, request: Request) -> None:
        super().end_prefill(request)
        self.num_present -= 1

    def end_hold(self, request: Request) -> None:
        """The KV cache prefilled here is elsewhere, or not needed any more."""
        self.scheduled_bytes -= self._scheduled.pop((request.request_id, request.attempt), 0)

    def add_decode(self, request: Request) -> None:
        super().add_decode(request)
        self._schedule(request, self.whole_bytes(request))
        if request.prefill_on == self.index:
            self._arrived()

    def arrive_decode(self, request: Request) -> None:
        """The KV cache of a request that was prefilled elsewhere is here."""
        self._arrived()

    def end_decode(self, request: Request) -> None:
        super().end_decode(request)
        self.end_hold(request)
        if request.prefill_on == self.index or request.phase is Phase.DECODING:
            self.num_present -= 1

    def _arrived(self) -> None:
        """A task that finds others at the machine waits, if only for the next batch; alone it starts."""
        self.has_queue |= self.num_present > 0
        self.num_present += 1

    def _schedule(self, request: Request, num_bytes: int) -> None:
        self._scheduled[request.request_id, request.attempt] = num_bytes
        self.scheduled_bytes += num_bytes


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
        self.taken: list[SplitwiseSimLoad] = []

    def place(self, request: Request, pools: Pools) -> tuple[MachineLoad, MachineLoad]:
        """As every policy, but that it says itself, in `taken`, which machines join the mixed pool."""
        self.taken = []
        if pools.machines[0].home is Pool.MIXED:
            machine = pools.least(Pool.MIXED, "by_queue")
            return machine, machine
        prefill_on = self._least_queue(request, pools)
        decode_on = self._least_memory(request, pools)
        if prefill_on is None and (prefill_on := pools.least(Pool.TOKEN, "by_queue")) is not None:
            self.taken.append(prefill_on)
        if decode_on is None and (decode_on := pools.least(Pool.PROMPT, "by_memory")) is not None:
            self.taken.append(decode_on)
        if prefill_on is None or decode_on is None:
            prefill_on = decode_on = self._least_of_all(pools)
        return prefill_on, decode_on

    def _least_queue(self, request: Request, pools: Pools) -> SplitwiseSimLoad | None:
        for pool in (Pool.PROMPT, Pool.MIXED):
            machine = pools.least(pool, "by_queue")
            if machine is not None:
                num_tokens = machine.pending_tokens + request.prefill_tokens
                if not machine.has_queue or num_tokens <= self.max_pending_tokens:
                    return machine
        return None

    def _least_memory(self, request: Request, pools: Pools) -> SplitwiseSimLoad | None:
        for pool in (Pool.TOKEN, Pool.MIXED):
            machine = pools.least(pool, "by_memory")
            if machine is not None and machine.scheduled_bytes + machine.whole_bytes(request) < machine.memory_bytes:
                return machine
        return None

    def _least_of_all(self, pools: Pools) -> SplitwiseSimLoad:
        """Ties to the prompt pool, then to the mixed one, where those just taken come last, then to the token pool."""
        order = []
        for pool in (Pool.PROMPT, Pool.MIXED, Pool.TOKEN):
            order += sorted((machine for machine in pools[pool] if machine not in self.taken), key=attrgetter("turn"))
            if pool is Pool.MIXED:
                order += self.taken
        return min(order, key=attrgetter("pending_tokens"))
