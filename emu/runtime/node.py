"""A machine with what executes its steps."""

from emu.core.machine import Machine
from emu.core.messages import RunSteps, StepsDone, StepsPassed
from emu.execution.emulated import EmulatedExecutor
from emu.execution.step_run import StepRun


class Node:
    """Keeps a machine's run in flight, and tells the machine of its steps in time."""

    __slots__ = ("executor", "machine", "run")

    def __init__(self, machine: Machine, executor: EmulatedExecutor) -> None:
        self.machine = machine
        self.executor = executor
        self.run: StepRun | None = None

    def start(self, action: RunSteps, now_s: float) -> StepRun:
        run = self.run = self.executor.start(action[0], action[1], now_s)
        return run

    def cut(self) -> bool:
        """End the run in flight at its next boundary. Returns whether that is earlier than before."""
        end_s = self.run.end_s
        self.run.cut()
        return self.run.end_s != end_s

    def passed(self, now_s: float, sender: int) -> StepsPassed | None:
        """The steps that ended before an event of `sender` at `now_s`; of equal times the lower address goes first."""
        run = self.run
        if run is None or run.next_s > now_s:
            return None
        boundaries_s = run.pass_until(now_s, inclusive=self.machine.index < sender)
        return StepsPassed(boundaries_s) if boundaries_s else None

    def done(self, run: StepRun, now_s: float) -> StepsDone | None:
        """The end of `run` at `now_s`, or None where it was cut and that was not its end."""
        if run is not self.run or run.end_s != now_s:
            return None
        self.run = None
        return StepsDone(run.rest(), self.executor.finish(len(run.boundaries_s)))
