"""What the published simulator's scheduler counts of each machine (SPLITWISE.md §9)."""

from typing import ClassVar

from emu.core.oracle import OutputOracle
from emu.core.pools import MachineLoad, Role
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
