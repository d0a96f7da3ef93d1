"""The whole cluster in one process, in no time: a heap of events.

An event's key is (time, sender, the sender's sequence number). Every receiver thus sees the order that it would see over
real streams, where it sorts what has arrived by the same key.
"""

import gc
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from heapq import heappop, heappush
from time import perf_counter

from emu.core import setting
from emu.core.cluster import Cluster
from emu.core.machine import Machine
from emu.core.messages import (
    DRIVER,
    NETWORK,
    SCHEDULER,
    Cancelled,
    CompleteFlow,
    CutRun,
    Emit,
    KVReceived,
    MachineDied,
    Pull,
    RequestArrived,
    RunEnded,
    RunStarted,
    RunSteps,
    Send,
    SetTimer,
)
from emu.execution.emulated import MAX_STEPS_A_RUN, EmulatedExecutor
from emu.execution.step_run import StepRun
from emu.results.event_log import EventLog
from emu.results.recorder import Recorder
from emu.results.run_record import KVStats, RunRecord
from emu.runtime.fault import Fault
from emu.runtime.interrupt import CAUSE, Interrupt
from emu.runtime.node import Node
from emu.runtime.rehearsal import Progress, Rehearsal
from emu.workload.workload import Workload


class Virtual:
    """Runs rehearsals in emulated time only. Each control message takes `control_latency_s`; KV bytes do not move.

    `max_num_steps` bounds the decode steps of a run: 1 executes step by step, which decides and times everything the same.
    """

    name = "virtual"
    logs_events = False

    def __init__(self, control_latency_s: float, report_period_s: float, max_num_steps: int) -> None:
        self.control_latency_s = setting.not_negative("runtime.control_latency_s", control_latency_s)
        self.report_period_s = setting.not_negative("runtime.report_period_s", report_period_s)
        self.max_num_steps = setting.whole("runtime.max_num_steps", max_num_steps, 1)

    def run(self, rehearsal: Rehearsal) -> RunRecord:
        """Run to the end, or to Ctrl-C. Raises OSError where the event log cannot be written."""
        cluster, workload = rehearsal.cluster, rehearsal.workload
        recorder = Recorder(workload, len(cluster.machines))
        log = EventLog(rehearsal.run_dir / "events.msgpack") if rehearsal.log_events else nullcontext()
        wall_start = perf_counter()
        with log as event_log, Interrupt() as interrupt:
            runtime = VirtualRuntime(
                cluster, workload, recorder, rehearsal.max_drain_s, rehearsal.faults, event_log, self.max_num_steps
            )

            def goes_on(now_s: float) -> bool:
                num_arrived = int(workload.arrival_s.searchsorted(now_s, side="right"))
                num_ended = num_arrived - len(runtime.scheduler.requests)
                rehearsal.on_progress(Progress(now_s, num_arrived, num_ended, late_p99_s=0.0))
                return not interrupt.requested

            run = runtime.run(goes_on)
        return RunRecord(
            runtime=self.name,
            seed=rehearsal.seed,
            model=cluster.model,
            machines=cluster.machines,
            recorder=recorder,
            emulated_s=run.emulated_s,
            num_events=run.num_events,
            kv=KVStats(),
            fidelity=None,
            interrupted="" if run.is_complete else CAUSE,
            wall_start=wall_start,
        )


class _Node(Node):
    """A machine and its executor, until it dies."""

    __slots__ = ("dead",)

    def __init__(self, machine: Machine, executor: EmulatedExecutor) -> None:
        super().__init__(machine, executor)
        self.dead = False


@dataclass(frozen=True, slots=True)
class VirtualRun:
    """How far the run went: the time of its last event, how many events were handled, and whether that was all."""

    emulated_s: float
    num_events: int
    is_complete: bool


class VirtualRuntime:
    """Runs `workload` on `cluster`, facts to `recorder`. Requests unfinished `max_drain_s` after the last arrival fail.

    `max_num_steps` bounds the steps a run: 1 is step-by-step execution, which decides and times everything the same.
    The state machines are public for inspection after the run.
    """

    def __init__(
        self,
        cluster: Cluster,
        workload: Workload,
        recorder: Recorder,
        max_drain_s: float,
        faults: Sequence[Fault] = (),
        event_log: EventLog | None = None,
        max_num_steps: int = MAX_STEPS_A_RUN,
    ) -> None:
        self._workload = workload
        self._recorder = recorder
        self._event_log = event_log
        self._latency_s = cluster.control_latency_s
        self._max_drain_s = max_drain_s
        self.scheduler = cluster.make_scheduler()
        self.network = cluster.make_network()
        output_tokens = workload.output_tokens.tolist()
        self._nodes = [
            _Node(cluster.make_machine(spec.index), EmulatedExecutor(spec.timing, output_tokens, max_num_steps))
            for spec in cluster.machines
        ]
        self._heap: list[tuple[float, int, int, int, object]] = []
        self._seq = 0
        self._emit = recorder.emitters
        self._facts = recorder.handlers
        self._special = {KVReceived: self._is_through, Cancelled: self._forget_flow, Fault: self._kill}
        # Of each flow under way, by (request, attempt): where it comes from, and when it will be through.
        self._sources: dict[tuple[int, int], int] = {}
        self._due_s: dict[tuple[int, int], float] = {}
        for fault in faults:
            self._push(fault.at_s, DRIVER, fault.machine, fault)

    @property
    def machines(self) -> list[Machine]:
        return [node.machine for node in self._nodes]

    def run(self, goes_on: Callable[[float], bool] = lambda now_s: True) -> VirtualRun:
        """Run to the end, or until `goes_on(now_s)`, asked now and then, says no: what is unfinished then fails.

        Not re-entrant: one run an object.
        """
        was_enabled = gc.isenabled()
        gc.disable()  # nothing here makes cycles, and collections would scan every live message again and again
        try:
            return self._run(goes_on)
        finally:
            if was_enabled:
                gc.enable()

    def _run(self, goes_on: Callable[[float], bool]) -> VirtualRun:
        heap, nodes, perform = self._heap, self._nodes, self._perform
        scheduler, network, log = self.scheduler, self.network, self._event_log
        arrivals = enumerate(self._workload.rows())
        deadline_s = float(self._workload.arrival_s[-1]) + self._max_drain_s
        unfinished = RunEnded(f"unfinished {self._max_drain_s:g} s after the last arrival")
        self._push(deadline_s, len(nodes), SCHEDULER, unfinished)  # after every other event of that time
        self._handle(SCHEDULER, scheduler, RunStarted(), 0.0)
        self._next_arrival(arrivals)
        last_s, num_events = 0.0, 1
        while heap:
            now_s, sender, _, receiver, event = heappop(heap)
            kind = type(event)
            if receiver >= 0:
                node = nodes[receiver]
                if kind is StepRun:
                    event = node.done(event, now_s)
                    if event is None:
                        continue  # it was cut, or its machine died
                elif node.dead:
                    continue
                else:
                    run = node.run
                    if run is not None and run.next_s <= now_s and (passed := node.passed(now_s, sender)) is not None:
                        self._handle(receiver, node.machine, passed, now_s)
                        num_events += 1
                    if kind in self._special and not self._special[kind](node, event, now_s):
                        continue
                actions = node.machine.handle(event, now_s)
            elif receiver == SCHEDULER:
                if kind is RequestArrived:
                    self._next_arrival(arrivals)
                elif event is unfinished and not scheduler.requests:
                    continue
                actions = scheduler.handle(event, now_s)
            else:
                actions = network.handle(event, now_s)
            if log is not None:
                log.append(receiver, now_s, event, actions)
            if actions:
                perform(receiver, actions, now_s)
            last_s = now_s  # of what was handled: an event that is skipped is no part of the run
            num_events += 1
            if not num_events & 0xFFF and not goes_on(now_s):
                self._handle(SCHEDULER, scheduler, RunEnded("the run was interrupted"), now_s)
                return VirtualRun(now_s, num_events + 1, is_complete=False)
        return VirtualRun(last_s, num_events, is_complete=True)

    def _handle(self, party: int, state_machine, event: tuple, now_s: float) -> None:
        actions = state_machine.handle(event, now_s)
        if self._event_log is not None:
            self._event_log.append(party, now_s, event, actions)
        self._perform(party, actions, now_s)

    def _perform(self, party: int, actions: list[tuple], now_s: float) -> None:
        heap, seq = self._heap, self._seq
        due_s = now_s + self._latency_s
        for action in actions:
            kind = type(action)
            if kind is Send:
                seq += 1
                heappush(heap, (due_s, party, seq, action[0], action[1]))
            elif kind is Emit:
                self._emit[party](action)
            elif kind is RunSteps:
                run = self._nodes[party].start(action, now_s)
                seq += 1
                heappush(heap, (run.end_s, party, seq, party, run))
            elif kind in self._facts:
                self._facts[kind](now_s, action)
            elif kind is CutRun:
                node = self._nodes[party]
                if node.cut():
                    seq += 1
                    heappush(heap, (node.run.end_s, party, seq, party, node.run))
            elif kind is CompleteFlow:
                received = KVReceived(action.request_id, action.attempt)
                self._due_s[received] = action.at_s
                seq += 1
                heappush(heap, (action.at_s, NETWORK, seq, action.destination, received))
            elif kind is Pull:
                self._sources[action.request_id, action.attempt] = action.source
            elif kind is SetTimer:
                seq += 1
                heappush(heap, (action.at_s, party, seq, party, action.message))
        self._seq = seq

    def _is_through(self, node: _Node, received: KVReceived, now_s: float) -> bool:
        """Whether the flow that was to be through now still is: its share may have changed, or its source died."""
        if self._due_s.get(received) != now_s:
            return False
        del self._due_s[received]
        return not self._nodes[self._sources.pop(received)].dead

    def _forget_flow(self, node: _Node, cancelled: Cancelled, now_s: float) -> bool:
        self._due_s.pop(cancelled, None)
        return True

    def _push(self, at_s: float, sender: int, receiver: int, event: object) -> None:
        self._seq += 1  # counts for all senders at once: only its order for one sender matters
        heappush(self._heap, (at_s, sender, self._seq, receiver, event))

    def _next_arrival(self, arrivals) -> None:
        for request_id, request in arrivals:
            self._push(request[0], DRIVER, SCHEDULER, RequestArrived(request_id, *request))
            return

    def _kill(self, node: _Node, fault: Fault, now_s: float) -> bool:
        node.dead = True
        node.run = None
        died = MachineDied(fault.machine, "killed by faults")
        self._push(now_s + self._latency_s, DRIVER, SCHEDULER, died)
        return False
