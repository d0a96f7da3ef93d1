"""Every action that a state machine may answer with is performed, and one that nobody knows is an error, in both runtimes."""

from dataclasses import replace
from typing import NamedTuple

import pytest

from emu.core.codec import TYPES
from emu.core.facts import FACTS
from emu.core.machine import Machine
from emu.core.messages import ACTIONS, DRIVER, SCHEDULER, QueueChanged, ResumeOutput, RunStarted, Send, SetFlowEnd, SetTimer
from emu.core.paged_machines import PagedMachines
from emu.core.scheduler import Scheduler
from emu.results.event_log import unpack_records
from emu.results.recorder import Recorder
from emu.runtime.effects import PERFORMERS
from emu.runtime.host import HostSettings
from emu.runtime.machine_cell import MachineCell
from emu.runtime.machine_host import MachineHost
from emu.runtime.scheduler_host import SchedulerHost
from emu.runtime.virtual_loop import VirtualRuntime
from tests.clusters import make_cluster, make_workload, simulate
from tests.runtime.test_ray_runtime import BASE
from tests.runtime.test_runs_without_end import cluster_of, kind_of
from tests.transfer.settings import settings_named

SETTINGS = HostSettings(b"secret", 0.005, 1.0, 1.0, log_events=True, overrun_s=0.005)


class Invented(NamedTuple):
    """An action of no runtime."""


def answering(base, action):
    """A state machine that adds this action to its first answer."""

    class Answering(base):
        has_answered = False

        def handle(self, event, now_s):
            actions = super().handle(event, now_s)
            if not self.has_answered:
                self.has_answered = True
                actions.append(action)
            return actions

    return Answering


def run_virtual(machine=Machine, scheduler=Scheduler):
    kind = kind_of(machine)
    type(kind).scheduler_type = scheduler
    workload = make_workload([(0.0, 10, 2)])
    runtime = VirtualRuntime(replace(make_cluster("m0"), kind=kind), workload, Recorder(workload, 1), 10.0)
    runtime.run()
    return runtime


def test_the_table_has_all_actions_and_every_message_is_in_the_codec():
    assert PERFORMERS.keys() == ACTIONS
    assert set(TYPES.values()) >= ACTIONS | FACTS


def test_both_kinds_of_actor_do_what_their_state_machines_ask_for():
    of_machines, of_schedulers = ACTIONS - {SetFlowEnd}, {Send, SetTimer, SetFlowEnd}
    assert all(hasattr(MachineCell, PERFORMERS[kind]) for kind in of_machines)
    assert all(hasattr(SchedulerHost, PERFORMERS[kind]) for kind in of_schedulers)


def test_virtual_performs_every_action():
    requests = [(0.0, 100, 60), (0.0, 120, 60), (0.1, 100, 60), (0.3, 200, 40), (0.9, 100, 10)]
    cluster = make_cluster("p0 p1 d0", d0=22, contention=True, layerwise_min_tokens=150)
    run = simulate(cluster, requests, deaths={"p1": 0.35})
    performed = {type(action) for record in unpack_records(run.packed_events) for action in record.actions}
    assert performed - FACTS == ACTIONS - {ResumeOutput}  # machines that sleep know no output
    run_virtual(machine=answering(Machine, ResumeOutput(0, 1, b"1234")))


@pytest.mark.parametrize("party", ["machine", "scheduler"])
def test_virtual_refuses_an_action_that_nobody_knows(party):
    base = {"machine": Machine, "scheduler": Scheduler}[party]
    with pytest.raises(TypeError, match=r"^the virtual runtime cannot perform Invented\(\)$"):
        run_virtual(**{party: answering(base, Invented())})


def test_actors_refuse_an_action_that_nobody_knows():
    cluster = make_cluster("p0 d0")
    host = MachineHost((0, 1), cluster, make_workload([(0.0, 1, 1)]).output_tokens, SETTINGS, settings_named(), None)
    with pytest.raises(TypeError, match=r"^MachineCell cannot perform Invented\(\)$"):
        host.cells[0].perform(0, [Invented()], 0.0, SCHEDULER)
    scheduler = SchedulerHost(cluster, SETTINGS, ())
    with pytest.raises(TypeError, match=r"^SchedulerHost cannot perform Invented\(\)$"):
        scheduler.perform(SCHEDULER, [Invented()], 0.0, DRIVER)
    with pytest.raises(TypeError, match=r"^SchedulerHost cannot perform ResumeOutput"):
        scheduler.perform(SCHEDULER, [ResumeOutput(0, 1, b"")], 0.0, DRIVER)


class Rings(Scheduler):
    """It sets itself a timer for 0.25 s, and stumbles as that rings."""

    def handle(self, event, now_s):
        if type(event) is QueueChanged:
            raise ValueError(f"rang at {now_s:g} s")
        actions = super().handle(event, now_s)
        return [*actions, SetTimer(0.25, QueueChanged(0, False))] if type(event) is RunStarted else actions


def test_a_timer_of_the_scheduler_rings_in_virtual():
    with pytest.raises(ValueError, match=r"^rang at 0\.25 s$"):
        run_virtual(scheduler=Rings)


@pytest.mark.usefixtures("two_nodes")
def test_a_timer_of_the_scheduler_rings_on_ray(rehearse):
    class Kind(PagedMachines):
        scheduler_type = Rings

    record = rehearse(*BASE, cluster=cluster_of(Kind(16, 0.0, 0.5)))
    assert record.interrupted == "the scheduler actor is gone: ValueError: rang at 0.25 s"
