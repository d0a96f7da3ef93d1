"""A run of steps whose ends are not known ahead: events in, what the machine and the recorder are told out."""

from math import inf

import pytest

from emu.core.batch import Batch
from emu.core.messages import Cancelled, KVPulled, KVReceived, RunSteps, StepsDone, StepsPassed
from emu.runtime.step_driver import StepDriver

BATCH = Batch((), (), (), 2, 100, 0)


class Executor:
    """Steps end as the test says; `begun` counts them."""

    def __init__(self) -> None:
        self.begun = self.num_more_steps = 0
        self.finished = ()

    def start(self, batch, max_num_steps, start_s):
        self.num_more_steps = max_num_steps
        self.extend(boundaries_s := [])
        return boundaries_s

    def extend(self, boundaries_s):
        self.begun += 1
        self.num_more_steps -= 1
        boundaries_s.append(inf)

    def finish(self, num_steps):
        return self.finished


class Machine:
    index = 3


@pytest.fixture
def told():
    return []


@pytest.fixture
def node(told):
    return StepDriver(Machine(), Executor(), lambda *fact: told.append(fact))


def end_step(node, now_s, *finished):
    """The step in flight is over, and with it the output of `finished`."""
    if finished:
        node.executor.finished, node.executor.num_more_steps = finished, 0
    node.step_ended(now_s)
    assert node.end_s == now_s
    return node.done()


def test_a_run_goes_on_to_the_end_of_a_request(node, told):
    assert node.start(RunSteps(BATCH, 10), 1.0) == inf
    assert end_step(node, 1.2) is None
    assert end_step(node, 1.5, 7) == StepsDone(2, (7,))
    assert node.executor.begun == 2
    assert told == [(1.0, [1.2, 1.5], BATCH, (7,))]


def test_it_is_idle_between_runs(node):
    assert node.is_idle
    for _ in range(2):
        node.start(RunSteps(BATCH, 2), 1.0)
        assert not node.is_idle
        end_step(node, 1.2)
        assert not node.is_idle
        end_step(node, 1.4)
        assert node.is_idle


def test_a_run_ends_after_its_last_step(node):
    node.start(RunSteps(BATCH, 2), 1.0)
    end_step(node, 1.2)
    assert end_step(node, 1.4) == StepsDone(2, ())
    assert node.executor.begun == 2


@pytest.mark.parametrize("cut_s", [1.3, 1.2])  # also as the step before ends
def test_a_cut_ends_it_after_the_step_in_flight(node, cut_s):
    node.start(RunSteps(BATCH, 10), 1.0)
    end_step(node, 1.2)
    assert not node.cut(cut_s, 0)
    assert end_step(node, 1.4) == StepsDone(2, ())
    node.start(RunSteps(BATCH, 10), 1.4)
    assert end_step(node, 1.6) is None, "the next run is not cut"
    assert node.executor.begun == 4


def test_the_machine_is_told_of_each_step_once(node):
    node.start(RunSteps(BATCH, 10), 1.0)
    assert node.passed(KVPulled(1, 1), 1.1, 0) is None
    end_step(node, 1.2)
    end_step(node, 1.4)
    assert node.passed(KVReceived(1, 1), 1.5, 0) is None, "what joins asks for no block"
    assert node.passed(KVReceived(1, 2), 1.5, 0) == StepsPassed(2)
    assert node.passed(KVPulled(1, 1), 1.5, 0) is None
    end_step(node, 1.6)
    assert node.passed(Cancelled(1, 1), 1.7, 0) == StepsPassed(1)
    assert end_step(node, 1.8, 3) == StepsDone(1, (3,))


def test_facts_are_told_once_and_with_the_first_the_batch(node, told):
    node.start(RunSteps(BATCH, 10), 1.0)
    node.tell_passed(1.1, 0)
    end_step(node, 1.2)
    node.tell_passed(1.3, 0)
    node.tell_passed(1.35, 0)
    end_step(node, 1.4)
    end_step(node, 1.6, 3)
    assert told == [(1.0, [1.2], BATCH, ()), (1.2, [1.4, 1.6], None, (3,))]
    node.tell_passed(1.7, 0)
    assert len(told) == 2
