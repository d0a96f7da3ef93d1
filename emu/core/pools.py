"""The prompt, token and mixed pools, and what the scheduler knows of each machine's load."""

from bisect import insort
from collections.abc import Callable
from collections.abc import Sequence as Seq
from enum import StrEnum
from heapq import heapify, heappop, heappush, heapreplace
from operator import attrgetter

from emu.core.request import Request


class Role(StrEnum):
    """What a machine was bought for."""

    PREFILL = "prefill"
    DECODE = "decode"
    MIXED = "mixed"


class Pool(StrEnum):
    """Where a machine is now. DEAD is no pool: nothing there is ever chosen."""

    PROMPT = "prompt"
    TOKEN = "token"
    MIXED = "mixed"
    DEAD = "dead"

    __hash__ = object.__hash__  # by identity, as members are compared: pools are looked up several times a request


HOME_POOL = {Role.PREFILL: Pool.PROMPT, Role.DECODE: Pool.TOKEN, Role.MIXED: Pool.MIXED}
PREFILL_POOLS = (Pool.PROMPT, Pool.MIXED, Pool.TOKEN)  # who prefills: the first of these that has a machine left
DECODE_POOLS = (Pool.TOKEN, Pool.MIXED, Pool.PROMPT)  # who decodes


class MachineLoad:
    """One machine as the scheduler sees it: what it was assigned, less what it has reported done.

    `num_prefills` and `num_decodes` count requests (`num_requests` both), `pending_prompt_tokens` the tokens of prompts not yet
    prefilled and `kv_tokens` the context tokens handed to its decodes (prompt and first token; outputs are unknown).
    `pending_tokens` is the queue length of SPLITWISE.md §4: prompt tokens to be prefilled and one for each decode.
    """

    __slots__ = (
        "home",
        "index",
        "kv_capacity_tokens",
        "kv_tokens",
        "num_decodes",
        "num_prefills",
        "pending_prompt_tokens",
        "pool",
    )

    def __init__(self, index: int, role: Role, kv_capacity_tokens: int) -> None:
        self.index = index
        self.home = self.pool = HOME_POOL[role]
        self.kv_capacity_tokens = kv_capacity_tokens
        self.num_prefills = self.num_decodes = self.pending_prompt_tokens = self.kv_tokens = 0

    @property
    def can_go_home(self) -> bool:
        """Whether no task of the opposite kind keeps it in the mixed pool (SPLITWISE.md §4)."""
        return not (self.num_decodes if self.home is Pool.PROMPT else self.num_prefills)

    @property
    def num_requests(self) -> int:
        return self.num_prefills + self.num_decodes

    @property
    def pending_tokens(self) -> int:
        return self.pending_prompt_tokens + self.num_decodes

    @property
    def kv_share(self) -> float:
        """The share of its KV cache that the contexts handed to its decodes take."""
        return self.kv_tokens / self.kv_capacity_tokens

    def add_prefill(self, request: Request) -> None:
        self.num_prefills += 1
        self.pending_prompt_tokens += request.prefill_tokens

    def end_prefill(self, request: Request) -> None:
        self.num_prefills -= 1
        self.pending_prompt_tokens -= request.prefill_tokens

    def add_decode(self, request: Request) -> None:
        self.num_decodes += 1
        self.kv_tokens += request.prefill_tokens + 1

    def end_decode(self, request: Request) -> None:
        self.num_decodes -= 1
        self.kv_tokens -= request.prefill_tokens + 1


Figure = float | tuple[int, int]  # of a load: what machines are ranked by


class _Ranking:
    """The members of one pool by one figure of their load.

    A heap with an entry or more for each member, none above its load: outdated ones are put right when they come to the top.
    """

    __slots__ = ("_load", "_members", "heap")

    def __init__(self, figure: str, members: list[MachineLoad]) -> None:
        self._load: Callable[[MachineLoad], Figure] = attrgetter(figure)
        self._members = members
        self.heap: list[tuple[Figure, int, MachineLoad]] = []
        self._rebuild()

    def _rebuild(self) -> None:
        load = self._load
        self.heap[:] = [(load(member), member.index, member) for member in self._members]
        heapify(self.heap)

    def note(self, machine: MachineLoad) -> None:
        heap = self.heap
        heappush(heap, (self._load(machine), machine.index, machine))
        if len(heap) > 64 + 4 * len(self._members):
            self._rebuild()

    def least(self, pool: Pool) -> MachineLoad:
        heap, load_of = self.heap, self._load
        while True:
            noted, index, machine = heap[0]
            if machine.pool is not pool:
                heappop(heap)
            elif (load := load_of(machine)) == noted:
                return machine
            else:
                heapreplace(heap, (load, index, machine))


class Pools:
    """All machines by pool, each pool in order of index.

    Whoever takes load off a machine says so by `changed` (what is added needs no word): then the least loaded one is found
    without a scan.
    """

    def __init__(self, machines: Seq[MachineLoad]) -> None:
        self.machines = machines
        self.is_colocated = all(machine.home is Pool.MIXED for machine in machines)  # for good: no home becomes the mixed pool
        self._by_pool: dict[Pool, list[MachineLoad]] = {pool: [] for pool in Pool}
        self._rankings: dict[Pool, dict[str, _Ranking]] = {pool: {} for pool in Pool}
        for machine in machines:
            self._by_pool[machine.pool].append(machine)

    def __getitem__(self, pool: Pool) -> list[MachineLoad]:
        return self._by_pool[pool]

    def move(self, machine: MachineLoad, pool: Pool) -> None:
        self._by_pool[machine.pool].remove(machine)
        machine.pool = pool
        insort(self._by_pool[pool], machine, key=lambda member: member.index)
        self.changed(machine)

    def changed(self, machine: MachineLoad) -> None:
        for ranking in self._rankings[machine.pool].values():
            ranking.note(machine)

    def least(self, pool: Pool, figure: str) -> MachineLoad | None:
        """The machine of `pool` with the least `figure`, an attribute of `MachineLoad`; ties to the lowest index."""
        if not self._by_pool[pool]:
            return None
        ranking = self._rankings[pool].get(figure)
        if ranking is None:
            ranking = self._rankings[pool][figure] = _Ranking(figure, self._by_pool[pool])
        return ranking.least(pool)

    def first_alive(self, pools: tuple[Pool, ...]) -> Pool:
        """The first of `pools` that has a machine; at least one must."""
        return next(pool for pool in pools if self._by_pool[pool])
