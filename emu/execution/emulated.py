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
        self._next_end = 0  # the step with which the first decode of the batch ends
        self._last_step: dict[int, int] = {}  # of each decode in the batch
        self._by_last_step: list[tuple[int, int]] = []  # heap over the same, with entries of some that have left
        self._prefills: tuple = ()

    def start(self, batch: Batch, max_num_steps: int, start_s: float) -> StepRun:
        """Begin `batch` at `start_s`: one step where it has prefills, else up to the first end of a request."""
        prefills, joins, leaves, num_decodes, context_tokens, _ = batch
        for request_id in leaves:
            self._last_step.pop(request_id, None)
        for request_id, _, _, num_generated in joins:
            last_step = self._step + self._output_tokens[request_id] - num_generated
            self._last_step[request_id] = last_step
            heappush(self._by_last_step, (last_step, request_id))
        if num_decodes:
            self._find_next_end()
        self._prefills = prefills
        if prefills:
            num_tokens = [prefill.num_tokens for prefill in prefills]
            if num_decodes:
                duration_s = self._timing.mixed_s(num_tokens, num_decodes, context_tokens)
            else:
                duration_s = self._timing.prefill_s(num_tokens)
            return StepRun([start_s + duration_s])
        num_steps = min(max_num_steps, self._max_num_steps, self._next_end - self._step)
        return StepRun(self._timing.decode_boundaries(start_s, num_decodes, context_tokens, num_steps))

    def finish(self, num_steps: int) -> tuple[int, ...]:
        """The run is over after `num_steps` steps: return the requests that got their last token from its last step."""
        self._step += num_steps
        if self._prefills:
            output_tokens = self._output_tokens
            finished = [
                request_id for request_id, _, _, generated in self._prefills if generated + 1 >= output_tokens[request_id]
            ]
        elif self._next_end != self._step:
            return ()
        else:
            finished = []
        while self._next_end == self._step and self._last_step:
            request_id = heappop(self._by_last_step)[1]
            del self._last_step[request_id]
            finished.append(request_id)
            self._find_next_end()
        return tuple(finished)

    def _find_next_end(self) -> None:
        heap, last_step = self._by_last_step, self._last_step
        while heap and last_step.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        self._next_end = heap[0][0] if heap else 0
