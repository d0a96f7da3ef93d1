"""The whole cluster in one process, in no time: a heap of events.

An event's key is (time, sender, the sender's sequence number). Every receiver thus sees the order that it would see over
real streams, where it sorts what has arrived by the same key.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import Any

from emu.core.batch import Batch
from emu.core.cluster import Cluster
from emu.core.facts import FACTS, KILLED_BY_FAULTS, TokensEmitted, drain_cause, unfinished_cause
from emu.core.machine_kind import MachineState
from emu.core.messages import (
    DRIVER,
    NETWORK,
    SCHEDULER,
    CutRun,
    DropAttempt,
    FlowRequested,
    FreeKV,
    KVReceived,
    MachineDied,
    OfferKV,
    PullKV,
    RequestArrived,
    ResumeOutput,
    RunEnded,
    RunStarted,
    RunSteps,
    Send,
    SendOutput,
    SetFlowEnd,
    SetTimer,
)
from emu.execution.emulated import NO_LIMIT, EmulatedExecutor
from emu.results.event_log import EventLog
from emu.results.recorder import Recorder
from emu.runtime.errors import RunError
from emu.runtime.fault import Fault
from emu.runtime.step_driver import BOUNDARY, StepDriver, TellSteps
from emu.workload.workload import Workload

EVENTS_A_LOOK = 4000  # at whether the run is to go on
NOTHING_TO_DO = frozenset({FreeKV, ResumeOutput})  # no bytes are held here, and no tokens known
# A run fails if no request gets on within this many events and 100 more for each request. A step takes a few events.
EVENTS_TO_GET_ON = 10_000_000


class _Driver(StepDriver):
    """A machine and its executor, until it dies."""

    __slots__ = ("dead", "handle")

    def __init__(self, machine: MachineState, executor: EmulatedExecutor, tell: TellSteps) -> None:
        super().__init__(machine, executor, tell)
        self.dead = False
        self.handle = machine.handle


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
        max_num_steps: int = NO_LIMIT,
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
            _Driver(cluster.make_machine(spec.index), EmulatedExecutor(spec.timing, output_tokens, max_num_steps), tell)
            for spec, tell in zip(cluster.machines, self._tellers(), strict=True)
        ]
        self._heap: list[tuple[float, int, int, int, Any]] = [(0.0, DRIVER, 0, SCHEDULER, RunStarted())]
        self._special: dict[type, Callable[[_Driver, Any, float], bool]] = {
            KVReceived: self._is_through,
            Fault: self._kill,
        }
        # Of each flow under way, by (request, attempt): when it will be through, and, where machines die, its source.
        self._due_s: dict[tuple[int, int], float] = {}
        self._sources: dict[tuple[int, int], int] = {}
        self._has_faults = bool(faults)
        self._checked = (-inf, -1, -1, -1)  # time, unfinished requests, the newest of them, steps: at the last check
        for seq, fault in enumerate(faults, start=1):
            died = MachineDied(fault.machine, KILLED_BY_FAULTS)
            heappush(self._heap, (fault.at_s, DRIVER, seq, fault.machine, fault))
            heappush(self._heap, (fault.at_s + self._latency_s, DRIVER, seq, SCHEDULER, died))

    @property
    def machines(self) -> list[MachineState]:
        return [node.machine for node in self._nodes]

    def run(self, goes_on: Callable[[float], bool] = lambda now_s: True) -> VirtualRun:
        """Run to the end, or until `goes_on(now_s)`, asked now and then, says no: what is unfinished then fails.

        Not re-entrant: one run an object. Raises RunError where events follow each other for ever and no request gets on.
        """
        was_enabled = gc.isenabled()
        gc.disable()  # nothing here makes cycles, and collections would scan every live message again and again
        try:
            return self._run(goes_on)
        finally:
            if was_enabled:
                gc.enable()

    def _run(self, goes_on: Callable[[float], bool]) -> VirtualRun:
        """Takes one event after the other, has it handled, and performs what it is answered with: all in one loop, because a
        call more for each event is a cost that shows.
        """
        heap, nodes, seq = self._heap, self._nodes, len(self._heap)
        scheduler, network, log = self.scheduler, self.network, self._event_log
        facts, special, due_s, latency_s = self._recorder.handlers, self._special, self._due_s, self._latency_s
        unfinished = RunEnded(drain_cause(self._max_drain_s))
        arrivals = enumerate(self._workload.rows())
        last_s, num_events, next_look, next_check = 0.0, 0, EVENTS_A_LOOK, 0
        action: Any  # a tuple of the type that it is asked for
        have_all_arrived = False
        while heap:
            now_s, sender, _, receiver, event = heappop(heap)
            if seq > next_look:
                next_look = seq + EVENTS_A_LOOK
                if not goes_on(now_s):
                    self._end(RunEnded(unfinished_cause("as the run was interrupted")), now_s)
                    return VirtualRun(now_s, num_events + 1, is_complete=False)
                if seq > next_check:
                    next_check = seq + EVENTS_TO_GET_ON + 100 * len(self._workload)
                    self._check_progress(now_s, have_all_arrived)
            if receiver >= 0:
                node = nodes[receiver]
                if event is BOUNDARY:
                    if node.end_s != now_s:
                        continue  # the run was cut, or its machine died
                    event = node.done()
                    if event is None:
                        seq += 1
                        heappush(heap, (node.end_s, receiver, seq, receiver, BOUNDARY))
                        continue
                elif node.dead:
                    continue
                else:
                    kind = type(event)
                    if kind in special and not special[kind](node, event, now_s):
                        continue
                    if node.next_s <= now_s and (passed := node.passed(event, now_s, sender)) is not None:
                        actions = node.handle(passed, now_s)  # none: nothing is decided by it
                        if log is not None:
                            log.append(receiver, now_s, passed, actions)
                        num_events += 1
                actions = node.handle(event, now_s)
            elif receiver == SCHEDULER:
                if sender == DRIVER:
                    kind = type(event)
                    if kind is RequestArrived or kind is RunStarted:
                        for request_id, request in arrivals:
                            arrived = RequestArrived(request_id, *request)
                            seq += 1
                            heappush(heap, (request[0], DRIVER, seq, SCHEDULER, arrived))
                            break
                        else:
                            have_all_arrived = True
                            # After every other event of that time.
                            seq += 1
                            heappush(heap, (event.arrival_s + self._max_drain_s, len(nodes), seq, SCHEDULER, unfinished))
                    elif have_all_arrived and not scheduler.requests:
                        continue  # a machine dies when the run is over
                elif event is unfinished and not scheduler.requests:
                    continue
                actions = scheduler.handle(event, now_s)
            else:
                if self._has_faults and type(event) is FlowRequested:
                    self._sources[event[:2]] = event.source
                actions = network.handle(event, now_s)
            if log is not None:
                log.append(receiver, now_s, event, actions)
            for action in actions:
                kind = type(action)
                if kind is Send:
                    seq += 1  # counts for all senders at once: only its order for one sender matters
                    heappush(heap, (now_s + latency_s, receiver, seq, action[0], action[1]))
                elif kind is RunSteps:
                    seq += 1
                    heappush(heap, (node.start(action, now_s), receiver, seq, receiver, BOUNDARY))
                elif kind in facts:
                    facts[kind](now_s, action)
                elif kind is CutRun:
                    if node.cut(now_s, sender):
                        seq += 1
                        heappush(heap, (node.end_s, receiver, seq, receiver, BOUNDARY))
                elif kind is OfferKV or kind is SendOutput:
                    seq += 1
                    heappush(heap, (now_s + latency_s, receiver, seq, action[0], action[1]))
                elif kind is PullKV:
                    seq += 1
                    heappush(heap, (now_s + latency_s, receiver, seq, NETWORK, action.flow))
                elif kind is SetFlowEnd:
                    request_id, attempt, destination, at_s = action
                    due_s[request_id, attempt] = at_s
                    seq += 1
                    heappush(heap, (at_s, NETWORK, seq, destination, KVReceived(request_id, attempt)))
                elif kind is SetTimer:
                    seq += 1
                    heappush(heap, (action.at_s, receiver, seq, receiver, action.message))
                elif kind is DropAttempt:
                    due_s.pop(action[:2], None)
                elif kind not in NOTHING_TO_DO:
                    raise TypeError(f"the virtual runtime cannot perform {action}")
            last_s = now_s  # of what was handled: an event that is skipped is no part of the run
            num_events += 1
        return VirtualRun(last_s, num_events, is_complete=True)

    def _check_progress(self, now_s: float, have_all_arrived: bool) -> None:
        """Raises RunError if no request has got on since the last check: none came or ended or, while time went on, ran."""
        ids, last = self.scheduler.requests, self._checked
        num_steps = self._recorder.num_steps if ids or not have_all_arrived else -1
        newest = next(reversed(ids), -1) if ids else -1
        self._checked = now_s, len(ids), newest, num_steps
        if last[1:3] == self._checked[1:3] and (last[0] == now_s or last[3] == num_steps):
            raise RunError(
                f"the run does not get on: at {now_s:g} s, no request has come, run or ended in {EVENTS_TO_GET_ON:,} events; "
                f"{len(ids):,} of {len(self._workload):,} are unfinished"
            )

    def _end(self, ended: RunEnded, now_s: float) -> None:
        """Have the requests ended. Nobody will receive what the scheduler sends."""
        actions = self.scheduler.handle(ended, now_s)
        if self._event_log is not None:
            self._event_log.append(SCHEDULER, now_s, ended, actions)
        for action in actions:
            if type(action) in FACTS:
                self._recorder.record(now_s, action)

    def _is_through(self, node: _Driver, received: KVReceived, now_s: float) -> bool:
        """Whether a flow that was to be through now is (its share may have changed, or its source died), and not in vain."""
        key = received[:2]
        if self._due_s.get(key) != now_s:
            return False
        del self._due_s[key]
        if self._has_faults and self._nodes[self._sources.pop(key)].dead:
            return False
        return not node.came_in_vain(received)

    def _tellers(self) -> list[TellSteps]:
        """What records the steps of each machine, in the event log as well if there is one."""
        emitters, log = self._recorder.emitters, self._event_log
        if log is None:
            return emitters

        def teller(machine: int, emit: TellSteps) -> TellSteps:
            def tell(start_s: float, boundaries_s: list[float], batch: Batch | None, finished: tuple[int, ...]) -> None:
                emit(start_s, boundaries_s, batch, finished)
                fact = TokensEmitted(machine, start_s, tuple(boundaries_s), batch, finished)
                log.append(machine, boundaries_s[-1], (), [fact])

            return tell

        return [teller(machine, emit) for machine, emit in enumerate(emitters)]

    def _kill(self, node: _Driver, fault: Fault, now_s: float) -> bool:
        node.tell_passed(now_s, DRIVER)
        node.dead = True
        node.end_s = -inf
        return False
