"""A machine whose steps are really executed, and its run of steps in flight."""

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from emu.core.batch import Batch
from emu.core.machine_kind import MachineState
from emu.core.messages import KVReceived, RunSteps, StepsDone, StepsPassed
from emu.runtime.node import JOINS, TellSteps

if TYPE_CHECKING:  # torch stays out of the driver's process
    from emu.execution.torch_engine.executor import Stepped, TorchExecutor


class RealNode:
    """As `Node`, where nobody knows when a step will end: the end of each is an event, `end_step`, which starts the next.

    `launch` has a step executed in the thread of the steps.
    """

    end_s = next_s = inf  # no boundary is known ahead

    def __init__(self, machine: MachineState, executor: "TorchExecutor", tell: TellSteps, launch: Callable[[], None]) -> None:
        self.machine = machine
        self.executor = executor
        self._tell = tell
        self._launch = launch
        self.is_idle = True
        # Of the run in flight.
        self._batch: Batch | None = None
        self._start_s = 0.0
        self._max_num_steps = 0
        self._is_cut = False
        self._boundaries_s: list[float] = []
        self._num_passed = self._num_facts = 0  # the machine has been told of so many of them, `tell` of so many

    def start(self, action: RunSteps, now_s: float) -> float:
        """Begin a run. Returns `end_s`."""
        self.is_idle = False
        self._batch, self._max_num_steps = action
        self._start_s, self._is_cut, self._boundaries_s = now_s, False, []
        self._num_passed = self._num_facts = 0
        self.executor.start(self._batch)
        self._launch()
        return self.end_s

    def end_step(self, stepped: "Stepped", now_s: float) -> StepsDone | None:
        """A step has ended at `now_s`: the run is over, or its next step is under way and nothing is done."""
        self._boundaries_s.append(now_s)
        num_steps = len(self._boundaries_s)
        if not stepped.finished and not self._is_cut and num_steps < self._max_num_steps:
            self._launch()
            return None
        self.is_idle = True
        self._tell(self._start_s, self._boundaries_s[self._num_facts :], self._batch, stepped.finished)
        num_steps -= self._num_passed
        self._boundaries_s = []
        self._num_passed = self._num_facts = 0
        return StepsDone(num_steps, stepped.finished)

    def cut(self, now_s: float, sender: int) -> bool:
        """End the run after the step in flight. Returns whether `end_s` is earlier now."""
        self._is_cut = True
        return False

    def passed(self, event: tuple, now_s: float, sender: int) -> StepsPassed | None:
        """See `Node.passed`."""
        num_passed = len(self._boundaries_s) - self._num_passed
        if not num_passed or (type(event) in JOINS and event[1] == 1):
            return None
        self._num_passed += num_passed
        return StepsPassed(num_passed)

    def came_in_vain(self, received: KVReceived) -> bool:
        """See `Node.came_in_vain`."""
        seq = self.machine.pulling.get(received.request_id)
        return seq is not None and self.executor.has_ended(*received, seq.num_generated)

    def tell_passed(self, now_s: float, sender: int) -> None:
        """Tell of the steps that have ended, though nothing needs to know yet."""
        if boundaries_s := self._boundaries_s[self._num_facts :]:
            self._tell(self._start_s, boundaries_s, self._batch, ())
            self._batch, self._start_s, self._num_facts = None, boundaries_s[-1], len(self._boundaries_s)
