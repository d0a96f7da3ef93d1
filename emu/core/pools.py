"""The prompt, token and mixed pools, and what the scheduler knows of each machine's load."""

from collections.abc import Sequence as Seq
from enum import StrEnum


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


HOME_POOL = {Role.PREFILL: Pool.PROMPT, Role.DECODE: Pool.TOKEN, Role.MIXED: Pool.MIXED}


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
        "num_requests",
        "pending_prompt_tokens",
        "pending_tokens",
        "pool",
    )

    def __init__(self, index: int, role: Role, kv_capacity_tokens: int) -> None:
        self.index = index
        self.home = self.pool = HOME_POOL[role]
        self.kv_capacity_tokens = kv_capacity_tokens
        self.num_prefills = self.num_decodes = self.num_requests = 0
        self.pending_prompt_tokens = self.pending_tokens = self.kv_tokens = 0

    def add_prefill(self, num_tokens: int, sign: int = 1) -> None:
        """A prompt of `num_tokens` was assigned; `sign` -1 takes it off again."""
        self.num_prefills += sign
        self.num_requests += sign
        self.pending_prompt_tokens += sign * num_tokens
        self.pending_tokens += sign * num_tokens

    def add_decode(self, num_tokens: int, sign: int = 1) -> None:
        """A decode after a prefill of `num_tokens` was assigned; `sign` -1 takes it off again."""
        self.num_decodes += sign
        self.num_requests += sign
        self.pending_tokens += sign
        self.kv_tokens += sign * (num_tokens + 1)


class Pools:
    """All machines by pool, each pool in order of index. Machines join the mixed pool and go home; they never change roles."""

    def __init__(self, machines: Seq[MachineLoad]) -> None:
        self.machines = machines
        self._by_pool: dict[Pool, list[MachineLoad]] = {pool: [] for pool in Pool}
        for machine in machines:
            self._by_pool[machine.pool].append(machine)

    def __getitem__(self, pool: Pool) -> list[MachineLoad]:
        return self._by_pool[pool]

    def move(self, machine: MachineLoad, pool: Pool) -> None:
        self._by_pool[machine.pool].remove(machine)
        machine.pool = pool
        self._by_pool[pool].append(machine)
        self._by_pool[pool].sort(key=lambda member: member.index)

    def for_prefill(self) -> list[MachineLoad]:
        """Who prefills: the prompt pool, else the mixed pool, else (no other machine is left) the token pool."""
        return self._first_of(Pool.PROMPT, Pool.MIXED, Pool.TOKEN)

    def for_decode(self) -> list[MachineLoad]:
        """Who decodes: the token pool, else the mixed pool, else (no other machine is left) the prompt pool."""
        return self._first_of(Pool.TOKEN, Pool.MIXED, Pool.PROMPT)

    def _first_of(self, *pools: Pool) -> list[MachineLoad]:
        return next((self._by_pool[pool] for pool in pools if self._by_pool[pool]), [])
