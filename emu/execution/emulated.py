"""A machine that computes nothing: a timing model says when each step ends, the workload how many tokens come out."""

from collections.abc import Sequence
from heapq import heappop, heappush

from emu.core.messages import Batch
from emu.core.timing.model import TimingModel
from emu.execution.step_run import StepRun

# Boundaries beyond the next event are computed in vain: the end of a run at this many steps costs one more event instead.
MAX_STEPS_A_RUN = 128


class EmulatedExecutor:
    """Executes batches of one machine by its timing model. `output_tokens[request_id]` is what only an executor knows."""

    def __init__(self, timing: TimingModel, output_tokens: Sequence[int], max_num_steps: int = MAX_STEPS_A_RUN) -> None:
        self._timing = timing
        self._output_tokens = output_tokens
        self._max_num_steps = max_num_steps
        self._step = 0
        self._last_step: dict[int, int] = {}  # of each decode in the batch
        self._by_last_step: list[tuple[int, int]] = []  # heap over the same, with entries of some that have left
        self._prefills: tuple = ()

    def start(self, batch: Batch, max_num_steps: int, start_s: float) -> StepRun:
        """Begin `batch` at `start_s`: one step where it has prefills, else up to the first end of a request."""
        for request_id in batch.leaves:
            self._last_step.pop(request_id, None)
        for join in batch.joins:
            last_step = self._step + self._output_tokens[join.request_id] - join.num_generated
            self._last_step[join.request_id] = last_step
            heappush(self._by_last_step, (last_step, join.request_id))
        self._prefills = batch.prefills
        if batch.prefills:
            num_tokens = [prefill.num_tokens for prefill in batch.prefills]
            if batch.num_decodes:
                duration_s = self._timing.mixed_s(num_tokens, batch.num_decodes, batch.context_tokens)
            else:
                duration_s = self._timing.prefill_s(num_tokens)
            return StepRun([start_s + duration_s])
        num_steps = min(max_num_steps, self._max_num_steps, self._next_end() - self._step)
        return StepRun(self._timing.decode_boundaries(start_s, batch.num_decodes, batch.context_tokens, num_steps))

    def finish(self, num_steps: int) -> tuple[int, ...]:
        """The run is over after `num_steps` steps: return the requests that got their last token from its last step."""
        finished = []
        for prefill in self._prefills:
            if prefill.num_generated + 1 >= self._output_tokens[prefill.request_id]:
                finished.append(prefill.request_id)
        self._step += num_steps
        while self._last_step and self._next_end() == self._step:
            request_id = heappop(self._by_last_step)[1]
            del self._last_step[request_id]
            finished.append(request_id)
        return tuple(finished)

    def _next_end(self) -> int:
        heap = self._by_last_step
        while self._last_step.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0]
