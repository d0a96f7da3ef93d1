"""A run of steps of which nobody knows the ends ahead: events in, what the machine is told out."""

import pytest

from emu.core.batch import Batch
from emu.core.facts import OutputWritten
from emu.core.messages import Cancelled, KVPulled, KVReceived, RunSteps, StepsDone, StepsPassed
from emu.runtime.real_node import RealNode

BATCH = Batch((), (), (), 2, 100, 0)


class Stepped:
    def __init__(self, *finished):
        self.finished = finished
        self.answers: tuple[OutputWritten, ...] = ()


GOES_ON = Stepped()


class Executor:
    def __init__(self) -> None:
        self.batches = []

    def start(self, batch):
        self.batches.append(batch)


@pytest.fixture
def told():
    return []


@pytest.fixture
def launched():
    return []


@pytest.fixture
def node(told, launched):
    return RealNode(None, Executor(), lambda *fact: told.append(fact), lambda: launched.append("step"))


def test_a_run_goes_on_to_the_end_of_a_request(node, told, launched):
    assert node.start(RunSteps(BATCH, 10), 1.0) == float("inf")
    assert node.end_step(GOES_ON, 1.2) is None
    assert node.end_step(Stepped(7), 1.5) == StepsDone(2, (7,))
    assert len(launched) == 2 and node.executor.batches == [BATCH]
    assert told == [(1.0, [1.2, 1.5], BATCH, (7,))]


def test_it_is_idle_between_runs(node):
    assert node.is_idle
    for _ in range(2):
        node.start(RunSteps(BATCH, 2), 1.0)
        assert not node.is_idle
        node.end_step(GOES_ON, 1.2)
        assert not node.is_idle
        node.end_step(GOES_ON, 1.4)
        assert node.is_idle


def test_a_run_ends_after_its_last_step(node, launched):
    node.start(RunSteps(BATCH, 2), 1.0)
    node.end_step(GOES_ON, 1.2)
    assert node.end_step(GOES_ON, 1.4) == StepsDone(2, ())
    assert len(launched) == 2


def test_a_cut_ends_it_after_the_step_in_flight(node, launched):
    node.start(RunSteps(BATCH, 10), 1.0)
    node.end_step(GOES_ON, 1.2)
    assert not node.cut(1.3, 0)
    assert node.end_step(GOES_ON, 1.4) == StepsDone(2, ())
    node.start(RunSteps(BATCH, 10), 1.4)
    assert node.end_step(GOES_ON, 1.6) is None, "the next run is not cut"
    assert len(launched) == 4


def test_the_machine_is_told_of_each_step_once(node):
    node.start(RunSteps(BATCH, 10), 1.0)
    assert node.passed(KVPulled(1, 1), 1.1, 0) is None
    node.end_step(GOES_ON, 1.2)
    node.end_step(GOES_ON, 1.4)
    assert node.passed(KVReceived(1, 1), 1.5, 0) is None, "what joins asks for no block"
    assert node.passed(KVReceived(1, 2), 1.5, 0) == StepsPassed(2)
    assert node.passed(KVPulled(1, 1), 1.5, 0) is None
    node.end_step(GOES_ON, 1.6)
    assert node.passed(Cancelled(1, 1), 1.7, 0) == StepsPassed(1)
    assert node.end_step(Stepped(3), 1.8) == StepsDone(1, (3,))


def test_facts_are_told_once_and_with_the_first_the_batch(node, told):
    node.start(RunSteps(BATCH, 10), 1.0)
    node.tell_passed(1.1, 0)
    node.end_step(GOES_ON, 1.2)
    node.tell_passed(1.3, 0)
    node.tell_passed(1.35, 0)
    node.end_step(GOES_ON, 1.4)
    node.end_step(Stepped(3), 1.6)
    assert told == [(1.0, [1.2], BATCH, ()), (1.2, [1.4, 1.6], None, (3,))]
    node.tell_passed(1.7, 0)
    assert len(told) == 2
