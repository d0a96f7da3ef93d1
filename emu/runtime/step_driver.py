"""A machine with what executes its steps, and its run of steps in flight."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from math import inf

from emu.core.batch import Batch
from emu.core.machine_kind import MachineState
from emu.core.messages import Assigned, KVReceived, RunSteps, StepsDone, StepsPassed, make
from emu.execution.protocol import Executor

JOINS = (Assigned, KVReceived)
BOUNDARY = "boundary"  # the event that a runtime schedules for a node at the `end_s` of its run

# Of steps that are over: start of the first, the end of each, their batch (None: it has been told), who finished with the last.
TellSteps = Callable[[float, list[float], Batch | None, tuple[int, ...]], None]


class StepDriver:
    """Tells the machine of its steps where it has to know, and `tell` of every step once: those are facts.

    `end_s` is the last boundary that has been computed: the end of the run, unless the executor goes on from there; minus
    infinity where nothing runs, and infinity while the end of the step in flight is not known: see `step_ended`. `next_s` is
    the first boundary but the last that the machine has not been told of, infinity where there is none.
    """

    __slots__ = (
        "_batch",
        "_boundaries_s",
        "_num_facts",
        "_num_passed",
        "_start_s",
        "_tell",
        "end_s",
        "executor",
        "machine",
        "next_s",
    )

    def __init__(self, machine: MachineState, executor: Executor, tell: TellSteps) -> None:
        self.machine = machine
        self.executor = executor
        self.end_s, self.next_s = -inf, inf
        self._num_passed = self._num_facts = 0  # of the run's steps: the machine has been told of so many, `tell` of so many
        self._tell = tell
        self._batch: Batch | None = None
        self._boundaries_s: list[float] = []
        self._start_s = 0.0

    def start(self, action: RunSteps, now_s: float) -> float:
        """Begin a run. Returns its `end_s`: look at it then."""
        batch, max_num_steps = action
        self._start_s, self._batch = now_s, batch
        self._boundaries_s = boundaries_s = self.executor.start(batch, max_num_steps, now_s)
        self.end_s = end_s = boundaries_s[-1]
        self.next_s = boundaries_s[0] if len(boundaries_s) > 1 else inf
        return end_s

    @property
    def is_idle(self) -> bool:
        return self.end_s == -inf

    def step_ended(self, now_s: float) -> None:
        """The step in flight, whose end was not known ahead, is over: this is its `end_s`."""
        self._boundaries_s[-1] = self.end_s = now_s

    def done(self) -> StepsDone | None:
        """At `end_s`: the run is over, or it goes on to a later `end_s` and nothing is done."""
        boundaries_s, executor = self._boundaries_s, self.executor
        if executor.num_more_steps:
            executor.extend(boundaries_s)
            self.next_s = boundaries_s[self._num_passed]
            self.end_s = boundaries_s[-1]
            return None
        num_steps = len(boundaries_s)
        finished = executor.finish(num_steps)
        if self._num_facts:
            boundaries_s = boundaries_s[self._num_facts :]
            self._num_facts = 0
        self._tell(self._start_s, boundaries_s, self._batch, finished)
        self.end_s, self.next_s = -inf, inf
        if self._num_passed:
            num_steps -= self._num_passed
            self._num_passed = 0
        return make(StepsDone, (num_steps, finished))

    def cut(self, now_s: float, sender: int) -> bool:
        """End the run at its first boundary after an event of `sender` at `now_s`. Returns whether `end_s` is earlier now."""
        self.executor.num_more_steps = 0
        boundaries_s = self._boundaries_s
        num_passed = self._num_before(now_s, sender)
        if num_passed + 1 == len(boundaries_s) or self.end_s == inf:
            return False
        del boundaries_s[num_passed + 1 :]
        self.end_s = boundaries_s[-1]
        if num_passed == self._num_passed:
            self.next_s = inf
        return True

    def passed(self, event: tuple, now_s: float, sender: int) -> StepsPassed | None:
        """The steps that ended before this event and that the machine has to be told of first.

        What joins the batch may cut the run, but asks for no blocks; a new attempt frees those of the one before.
        """
        if self.next_s > now_s or (type(event) in JOINS and event[1] == 1):
            return None
        num_told, self._num_passed = self._num_passed, self._num_before(now_s, sender)
        num_passed = self._num_passed
        self.next_s = self._boundaries_s[num_passed] if num_passed + 1 < len(self._boundaries_s) else inf
        return StepsPassed(num_passed - num_told) if num_passed > num_told else None

    def came_in_vain(self, received: KVReceived) -> bool:
        """Whether the request of a KV cache that is complete here has no more tokens to write.

        The first token comes with the last layer. Where it was the last one too, which its source could not know when it
        offered the first layer, nothing joins: the source's word to forget it is under way.
        """
        seq = self.machine.pulling.get(received.request_id)
        return seq is not None and self.executor.has_ended(received.request_id, received.attempt, seq.num_generated)

    def tell_passed(self, now_s: float, sender: int) -> None:
        """Tell of the steps that ended before an event of `sender` at `now_s`, though nothing needs to know yet."""
        if self.end_s == -inf:
            return
        num_passed = self._num_before(now_s, sender)
        if boundaries_s := self._boundaries_s[self._num_facts : num_passed]:
            self._tell(self._start_s, boundaries_s, self._batch, ())
            self._batch, self._start_s, self._num_facts = None, boundaries_s[-1], num_passed

    def _num_before(self, now_s: float, sender: int) -> int:
        """How many steps, not counting the last, ended before that event; of equal times the lower address goes first."""
        bisect = bisect_right if self.machine.index < sender else bisect_left
        return bisect(self._boundaries_s, now_s, 0, len(self._boundaries_s) - 1)
