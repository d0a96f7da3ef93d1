"""A machine that computes nothing: a timing model says when each step ends, the workload how many tokens come out."""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush

import numpy as np

from emu.core.batch import Batch
from emu.core.facts import OutputWritten
from emu.core.timing.chunk import prefill_pass_s
from emu.core.timing.model import TimingModel
from emu.execution.prompts import TOKEN_ID

# Most runs are cut after a few steps: boundaries beyond that would be computed in vain. A run that lasts goes on from its last
# boundary, each time by so many times what it has.
NUM_STEPS_AHEAD = 8
GROWTH = 3
NO_LIMIT = 2**31  # to the steps of a run


class EmulatedExecutor:
    """Executes batches of one machine by its timing model. An `Executor`, whose ends of steps are known ahead.

    `output_tokens[request_id]` is what only an executor knows; an output that came from another machine and ends with one of
    `stop_ids` is over before. `max_num_steps` bounds every run: 1 executes step by step. `num_more_steps` is how many the run
    in flight may have beyond those whose ends are computed.
    """

    __slots__ = (
        "_by_last_step",
        "_context_tokens",
        "_has_gone",
        "_last_step",
        "_max_num_steps",
        "_num_decodes",
        "_output_tokens",
        "_prefills",
        "_step",
        "_stop_ids",
        "_stopped",
        "_timing",
        "has_kv_caches",
        "num_more_steps",
        "probe_interval_s",
    )

    def __init__(
        self,
        timing: TimingModel,
        output_tokens: Sequence[int],
        max_num_steps: int,
        stop_ids: frozenset[int] = frozenset(),
    ) -> None:
        self.has_kv_caches = False
        self.probe_interval_s = 0.0
        self._timing = timing
        self._output_tokens = output_tokens
        self._max_num_steps = max_num_steps
        self._stop_ids = stop_ids
        self._stopped: set[tuple[int, int]] = set()  # attempts that came with their last token
        self._step = 0
        self._last_step: dict[int, int] = {}  # of each decode in the batch
        self._by_last_step: list[tuple[int, int]] = []  # heap over the same, with entries of some that have left
        self._has_gone = False
        # Of the run in flight.
        self._prefills: tuple = ()
        self._num_decodes = self._context_tokens = 0
        self.num_more_steps = 0

    def start(self, batch: Batch, max_num_steps: int, start_s: float) -> list[float]:
        """Begin `batch` at `start_s` and return the ends of its first steps.

        The run has one step where it has prefills, else as many as lead to the first end of a request: `extend` has more.
        """
        prefills, joins, leaves, num_decodes, context_tokens, _ = batch
        for request_id in leaves:
            del self._last_step[request_id]
            self._has_gone = True
        for request_id, _, _, num_generated in joins:
            last_step = self._step + self._output_tokens[request_id] - num_generated
            self._last_step[request_id] = last_step
            heappush(self._by_last_step, (last_step, request_id))
        self._prefills = prefills
        if prefills:
            return [start_s + prefill_pass_s(self._timing, prefills, num_decodes, context_tokens)]
        if self._has_gone:
            self._forget_gone()
        num_steps = self._by_last_step[0][0] - self._step
        if num_steps > max_num_steps:
            num_steps = max_num_steps
        if num_steps > self._max_num_steps:
            num_steps = self._max_num_steps
        if num_steps > NUM_STEPS_AHEAD:
            self.num_more_steps = num_steps - NUM_STEPS_AHEAD
            num_steps = NUM_STEPS_AHEAD
            self._num_decodes, self._context_tokens = num_decodes, context_tokens
        return self._timing.decode_boundaries(start_s, num_decodes, context_tokens, num_steps)

    def extend(self, boundaries_s: list[float]) -> None:
        """Append the ends of some of the `num_more_steps` of the run in flight to those before."""
        num_done, num_decodes = len(boundaries_s), self._num_decodes
        num_steps = min(self.num_more_steps, GROWTH * num_done)
        self.num_more_steps -= num_steps
        context_tokens = self._context_tokens + num_done * num_decodes
        boundaries_s += self._timing.decode_boundaries(boundaries_s[-1], num_decodes, context_tokens, num_steps)

    def finish(self, num_steps: int) -> tuple[int, ...]:
        """The run is over after `num_steps` steps: return the requests that got their last token from its last step."""
        self._step = step = self._step + num_steps
        by_last_step = self._by_last_step
        if self._prefills:
            output_tokens = self._output_tokens
            finished = [
                request_id
                for request_id, _, _, generated, _, num_left in self._prefills
                if not num_left and generated + 1 >= output_tokens[request_id]
            ]
        elif by_last_step[0][0] > step:
            return ()
        else:
            finished = []
        while by_last_step and by_last_step[0][0] <= step:
            last_step, request_id = heappop(by_last_step)
            if self._last_step.get(request_id) == last_step:
                del self._last_step[request_id]
                finished.append(request_id)
        return tuple(finished)

    def has_ended(self, request_id: int, attempt: int, num_generated: int) -> bool:
        """True if a request with `num_generated` output tokens has no more to write."""
        return num_generated >= self._output_tokens[request_id] or (
            bool(self._stopped) and (request_id, attempt) in self._stopped
        )

    # --- what a machine that computes nothing has little to say of; see `Executor` ------------------------------------

    async def open(self, on_step: Callable[[Exception | None, float], None], on_layer: Callable[[int], None]) -> int | None:
        return None

    def outputs(self) -> tuple[OutputWritten, ...]:
        return ()

    def end_step(self) -> None:
        pass

    def resume(self, request_id: int, attempt: int, output_ids: bytes) -> None:
        pass

    def drop(self, request_id: int, attempt: int) -> None:
        pass

    def output_ids(self, request_id: int, attempt: int) -> bytes:
        return b""

    def is_prefilling(self, request_id: int, attempt: int) -> bool:
        return False

    def cache_of(self, request_id: int, attempt: int, num_tokens: int) -> None:
        return None

    def expect(self, request_id: int, attempt: int, num_tokens: int, is_real: bool) -> None:
        return None

    def complete(self, request_id: int, attempt: int, output_ids: bytes) -> None:
        if output_ids and int(np.frombuffer(output_ids, TOKEN_ID)[-1]) in self._stop_ids:
            self._stopped.add((request_id, attempt))

    async def probe(self, is_idle: Callable[[], bool]) -> list[tuple[str, float]]:
        return []

    def _forget_gone(self) -> None:
        """Those that left the batch and would have ended first: the run must not end for them."""
        heap = self._by_last_step
        while self._last_step.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
