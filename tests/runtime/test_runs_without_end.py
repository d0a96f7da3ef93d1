"""Runs whose events follow each other for ever, or cannot be handled, end in one line."""

from dataclasses import replace

import pytest

from emu.build import build, compose
from emu.core.machine import Machine
from emu.core.messages import SetTimer
from emu.core.paged_machines import PagedMachines
from emu.core.scheduler import Scheduler
from emu.results.columns import FINISHED, UNFINISHED
from emu.results.recorder import Recorder
from emu.runtime import virtual_loop
from emu.runtime.errors import RunError
from emu.runtime.virtual_loop import VirtualRuntime
from tests.clusters import make_cluster, make_workload
from tests.runtime.test_ray_runtime import BASE


def kind_of(make_machine):
    """Machines that `make_machine` makes of a Machine's arguments."""

    class Kind(PagedMachines):
        def make_machine(self, *args):
            made = super().make_machine(*args)
            return make_machine(made.index, made.kv, made.batching, made.handover)

    return Kind(16, 0.0, 0.5)


def runtime(make_machine, max_drain_s):
    """Two requests on such a machine."""
    cluster = replace(make_cluster("m0"), kind=kind_of(make_machine))
    workload = make_workload([(0.0, 10, 2), (0.5, 10, 2)])
    return VirtualRuntime(cluster, workload, Recorder(workload, 1), max_drain_s)


def asks_again(after_s):
    class AsksAgain(Machine):
        def handle(self, event, now_s):
            return [SetTimer(now_s + after_s, event)]

    return AsksAgain


@pytest.mark.parametrize(
    ("make_machine", "at_s", "num_unfinished"),
    [
        (asks_again(0.0), "0.005 s", 1),  # time stands still before the second request
        (asks_again(1e-9), r"0\.005\d+ s", 1),
        (asks_again(0.01), r"\d+\.?\d* s", 0),  # all have failed by then
    ],
)
def test_a_machine_that_never_gets_on(monkeypatch, make_machine, at_s, num_unfinished):
    monkeypatch.setattr(virtual_loop, "EVENTS_TO_GET_ON", 20_000)
    line = rf"^the run does not get on: at {at_s}, no request has come, run or ended in 20,000 events; {num_unfinished} of 2 "
    with pytest.raises(RunError, match=line):
        runtime(make_machine, max_drain_s=3.0).run()


def test_a_long_run_is_none_of_them(monkeypatch):
    monkeypatch.setattr(virtual_loop, "EVENTS_TO_GET_ON", 1000)
    monkeypatch.setattr(virtual_loop, "EVENTS_A_LOOK", 10)
    workload = make_workload([(0.0, 10, 40_000), (0.5, 10, 2)])
    cluster = make_cluster("m0", num_blocks=10_000)
    VirtualRuntime(cluster, workload, recorder := Recorder(workload, 1), 1e6, max_num_steps=1).run()
    assert recorder.columns().requests.num_tokens_out.tolist() == [40_000, 2]


def cluster_of(kind):
    return replace(build(compose(list(BASE))).run_config.cluster, kind=kind)


class Stumbles(Machine):
    """Machine 3 takes nothing after its first half second."""

    def handle(self, event, now_s):
        if self.index == 3 and now_s > 0.5:
            raise ValueError("no more of this")
        return super().handle(event, now_s)


class StumblingScheduler(Scheduler):
    """It takes nothing after its first half second."""

    def handle(self, event, now_s):
        if now_s > 0.5:
            raise ValueError("no more of this")
        return super().handle(event, now_s)


class ScheduledByIt(PagedMachines):
    scheduler_type = StumblingScheduler


@pytest.mark.usefixtures("two_nodes")
def test_a_machine_that_stumbles_is_declared_dead_and_its_requests_go_on(rehearse):
    columns = rehearse(*BASE, cluster=cluster_of(kind_of(Stumbles))).recorder.columns()
    assert (columns.requests.status == FINISHED).all()
    assert list(columns.pool_moves.pool).count("dead") == 1
    assert len(columns.requeues) and all("ValueError: no more of this" in cause for cause in columns.requeues.cause)


@pytest.mark.usefixtures("two_nodes")
def test_a_scheduler_that_stumbles_ends_the_run(rehearse):
    record = rehearse(*BASE, cluster=cluster_of(ScheduledByIt(16, 0.0, 0.5)))
    assert record.interrupted == "the scheduler actor is gone: ValueError: no more of this"
    assert (record.recorder.columns().requests.status == UNFINISHED).any()
