"""A runtime whose streams stall: every control message comes late, by as much as it happens to."""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from heapq import heappop, heappush

from emu.core.cluster import Cluster
from emu.core.facts import FACTS, TokensEmitted
from emu.core.messages import (
    DRIVER,
    NETWORK,
    SCHEDULER,
    CutRun,
    DropAttempt,
    FreeKV,
    KVReceived,
    MachineDied,
    OfferKV,
    PullKV,
    RequestArrived,
    RunEnded,
    RunStarted,
    RunSteps,
    Send,
    SendOutput,
    SetFlowEnd,
    SetTimer,
)
from emu.execution.emulated import NO_LIMIT, EmulatedExecutor
from emu.results.recorder import Recorder
from emu.runtime.fault import Fault
from emu.runtime.step_driver import BOUNDARY, StepDriver
from emu.workload.workload import Workload
from tests.watch import Watch

STALLS_S = (0.0, 0.0, 0.001, 0.03, 0.4, 3.0)


class StallingRuntime:
    """A message from `sender` to `receiver` takes the control latency and `stall_s(sender, receiver)` more.

    Each stream from one party to another keeps its order, as over TCP; between streams any order can come about. So messages
    of attempts long over arrive, and some from machines declared dead. Nothing is pulled from a source that is dead or no
    longer holds it.
    """

    def __init__(
        self,
        cluster: Cluster,
        workload: Workload,
        recorder: Recorder,
        max_drain_s: float,
        faults: Sequence[Fault],
        watch: Watch,
        max_num_steps: int = NO_LIMIT,
        *,
        stall_s: Callable[[int, int], float],
    ) -> None:
        self._latency_s = cluster.control_latency_s
        self._recorder = recorder
        self._watch = watch
        self._stall_s = stall_s
        self.scheduler = cluster.make_scheduler()
        self.network = cluster.make_network()
        output_tokens = workload.output_tokens.tolist()
        self._nodes = [
            StepDriver(
                cluster.make_machine(spec.index),
                EmulatedExecutor(spec.timing, output_tokens, max_num_steps),
                partial(self._tell_steps, spec.index),
            )
            for spec in cluster.machines
        ]
        self.machines = [node.machine for node in self._nodes]
        self._parties = dict(enumerate(self.machines)) | {SCHEDULER: self.scheduler, NETWORK: self.network}
        self._dead: set[int] = set()
        self._pulls: dict[tuple[int, int], int] = {}  # (request, attempt) -> source
        self._ends: dict[tuple[int, int], KVReceived] = {}  # of each flow the end that was told last
        self._last_s: dict[tuple[int, int], float] = defaultdict(float)
        self._heap: list[tuple[float, int, int, int, object]] = []
        self._num_due = 0
        self._due(0.0, DRIVER, SCHEDULER, RunStarted())
        for request_id, request in enumerate(workload.rows()):
            self._due(request[0], DRIVER, SCHEDULER, RequestArrived(request_id, *request))
        for fault in faults:
            self._due(fault.at_s, DRIVER, fault.machine, fault)
        self._due(float(workload.arrival_s[-1]) + max_drain_s, DRIVER, SCHEDULER, RunEnded("unfinished at the deadline"))

    def run(self) -> None:
        while self._heap:
            now_s, sender, _, receiver, event = heappop(self._heap)
            if receiver in self._dead:
                continue
            if receiver >= 0:
                node = self._nodes[receiver]
                if event is BOUNDARY:
                    if node.end_s != now_s:
                        continue
                    event = node.done()
                    if event is None:
                        self._due(node.end_s, receiver, receiver, BOUNDARY)
                        continue
                elif (passed := node.passed(event, now_s, sender)) is not None:
                    self._handle(receiver, passed, now_s, sender)
                if type(event) is KVReceived and not (self._ends[event[:2]] is event and self._is_held(event)):
                    continue
            if type(event) is Fault:
                node.tell_passed(now_s, sender)
                self._dead.add(receiver)
                self._send(now_s, DRIVER, SCHEDULER, MachineDied(receiver, "killed by faults"))
            else:
                self._handle(receiver, event, now_s, sender)

    def _tell_steps(self, machine: int, *steps) -> None:
        self._recorder.record(0.0, TokensEmitted(machine, *steps))

    def _handle(self, party: int, event: tuple, now_s: float, sender: int) -> None:
        actions = self._parties[party].handle(event, now_s)
        self._watch.append(party, now_s, event, actions)
        for action in actions:
            kind = type(action)
            if kind in (Send, SendOutput, OfferKV):
                self._send(now_s, party, *action)
            elif kind is PullKV:
                self._pulls[action.flow[:2]] = action.flow.source
                self._send(now_s, party, NETWORK, action.flow)
            elif kind in FACTS:
                self._recorder.record(now_s, action)
            elif kind is RunSteps:
                self._due(self._nodes[party].start(action, now_s), party, party, BOUNDARY)
            elif kind is CutRun:
                if self._nodes[party].cut(now_s, sender):
                    self._due(self._nodes[party].end_s, party, party, BOUNDARY)
            elif kind is SetFlowEnd:
                self._ends[action[:2]] = received = KVReceived(*action[:2])
                self._due(action.at_s, NETWORK, action.destination, received)
            elif kind is SetTimer:
                self._due(action.at_s, party, party, action.message)
            else:
                assert kind in (FreeKV, DropAttempt), action  # there is nothing to free

    def _send(self, now_s: float, sender: int, receiver: int, message: tuple) -> None:
        stream = (sender, receiver)
        due_s = now_s + self._latency_s + self._stall_s(*stream)
        self._last_s[stream] = due_s = max(due_s, self._last_s[stream])
        self._due(due_s, sender, receiver, message)

    def _due(self, at_s: float, sender: int, receiver: int, event: object) -> None:
        self._num_due += 1
        heappush(self._heap, (at_s, sender, self._num_due, receiver, event))

    def _is_held(self, received: KVReceived) -> bool:
        source = self._pulls.pop(received[:2])
        held = self.machines[source].holding.get(received.request_id)
        return source not in self._dead and held is not None and held.attempt == received.attempt


def stalled(stalls_s: Mapping[tuple[int, int], float]) -> Callable[..., StallingRuntime]:
    """What `simulate` makes its runtimes with: those streams from (sender, receiver) are so much slower."""
    return partial(StallingRuntime, stall_s=lambda *stream: stalls_s.get(stream, 0.0))


def shuffled(seed: int) -> Callable[..., StallingRuntime]:
    """The same with random stalls, which each stream draws for itself."""

    def make(*args, **limit) -> StallingRuntime:
        streams: dict[tuple[int, int], random.Random] = {}

        def stall_s(*stream: int) -> float:
            return streams.setdefault(stream, random.Random(f"{seed} {stream}")).choice(STALLS_S)

        return StallingRuntime(*args, stall_s=stall_s, **limit)

    return make
