"""One machine of the cluster as a Ray actor: its state machine, its executor and its end of the KV transfers."""

import asyncio

import numpy as np
import ray
from ray.actor import ActorHandle

from emu.core.batch import Batch
from emu.core.cluster import Cluster
from emu.core.facts import Emit
from emu.core.messages import (
    NETWORK,
    SCHEDULER,
    Cancelled,
    CompleteFlow,
    CutRun,
    FlowRequested,
    FreeKV,
    KVReady,
    KVReceived,
    RunSteps,
    Send,
    SetTimer,
)
from emu.execution.emulated import NO_LIMIT, EmulatedExecutor
from emu.runtime.inbox import Inbox
from emu.runtime.node import BOUNDARY, Node
from emu.runtime.party import Endpoint, Party, PartySettings
from emu.runtime.wire import FrameKind
from emu.transfer.object_store import ObjectStoreTransfer, SourceLost

Key = tuple[int, int]  # request, attempt
PROBE_S = 0.4
# Payload pieces are served on a thread of their own, one at a time: copying them must not delay the control plane.
KV_GROUP = "kv"


class MachineActor(Party):
    """Party `index` of the run. `bytes_per_token` of each KV cache are really moved; 0 moves none."""

    def __init__(
        self, index: int, cluster: Cluster, output_tokens: np.ndarray, settings: PartySettings, transfer_type: type
    ) -> None:
        super().__init__(index, settings)
        executor = EmulatedExecutor(cluster.machines[index].timing, output_tokens.tolist(), NO_LIMIT)
        self.node = Node(cluster.make_machine(index), executor, self._tell_steps)
        self.inbox: Inbox | None = None
        self.transfer_type = transfer_type
        self.transfer: ObjectStoreTransfer | None = None
        self.handles: dict[int, ActorHandle] = {}
        self._kv_bytes_per_token = cluster.model.kv_bytes_per_token
        self._pulls: dict[Key, asyncio.Task] = {}
        self._ends: dict[Key, KVReceived] = {}  # of each flow the newest notice that it is through, told ahead of its time
        self._due: dict[Key, float] = {}  # flows that are through by the model before the payload is
        self._num_overruns = 0

    # --- called by Ray ------------------------------------------------------------------------------------------------

    async def connect_to(self, endpoints: dict[int, Endpoint], handles: dict[int, ActorHandle]) -> None:
        self.handles = handles
        await self.connect(endpoints)

    async def prepare_transfer(self, payload_scale: float) -> None:
        self.transfer = self.transfer_type(payload_scale * self._kv_bytes_per_token)

    async def measure_transfer(self, source: int, num_bytes: int) -> float:
        """Seconds that a payload of `num_bytes` takes from `source` to here, copied, pulled and verified."""
        return await self.transfer.measure(self.handles[source], num_bytes, PROBE_S)

    async def hold(self, request_id: int, attempt: int, num_tokens: int) -> None:
        self.transfer.hold(request_id, attempt, num_tokens)

    @ray.method(concurrency_group=KV_GROUP)
    async def piece(self, request_id: int, attempt: int, index: int) -> tuple[int, np.ndarray]:
        return self.transfer.piece(request_id, attempt, index)

    async def free(self, request_id: int, attempt: int) -> None:
        self.transfer.free(request_id, attempt)

    # --- party --------------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        self.inbox = Inbox(self.clock, self._on_event)
        self.spawn(self.repeat(self.settings.heartbeat_s / 4, self._beat))

    def on_message(self, sender: int, receiver: int, due_s: float, seq: int, event: tuple) -> None:
        if type(event) is CompleteFlow:
            self._on_flow_timed(event, due_s, seq)
            return
        self.inbox.put_message(due_s, sender, seq, event)
        if type(event) is KVReady and self.node.machine.would_pull(event):
            # Like every message, the pull goes out ahead of the time at which the model says it arrives; what decides when
            # the request joins is the later of the modelled end and the verified copy.
            self._start_pull(event.source, event.request_id, event.attempt, event.num_tokens)

    def before_report(self) -> None:
        # Tokens are told when something happens; without this a quiet machine would tell none for seconds.
        self.node.tell_passed(min(self.clock.now_s(), self.inbox.next_s), SCHEDULER)

    def measurements(self) -> tuple[list[float], list[float], tuple]:
        counts = self.transfer.take_counts()
        num_overruns, self._num_overruns = self._num_overruns, 0
        return *self.inbox.take_lateness(), (
            counts.bytes_moved,
            counts.verified,
            counts.corrupt,
            num_overruns,
            tuple(counts.wire_s),
        )

    def _beat(self) -> None:
        if SCHEDULER in self.channels:
            self.channels[SCHEDULER].send(FrameKind.HEARTBEAT)

    # --- events and actions -------------------------------------------------------------------------------------------

    def _on_event(self, event: object, now_s: float, sender: int) -> None:
        if self.stopped.is_set():
            return
        if event is BOUNDARY:
            if self.node.end_s != now_s:
                return  # the run was cut
            if (done := self.node.done()) is not None:
                self._handle(done, now_s, sender)
            else:
                self.inbox.put(self.node.end_s, self.address, self.next_seq(), BOUNDARY)
            return
        if type(event) is KVReceived and self.node.came_in_vain(event):
            return
        if type(event) is KVReceived and sender == NETWORK:
            if self._ends.get(event) is not event:
                return  # called off, or the flow has got another share since
            pull = self._pulls[event]
            if not pull.done() or pull.exception() is not None:  # what was not verified never joins
                self._due[event] = now_s
                return
            del self._pulls[event], self._ends[event]
        if (passed := self.node.passed(event, now_s, sender)) is not None:
            self._handle(passed, now_s, sender)
        self._handle(event, now_s, sender)

    def _on_flow_timed(self, action: CompleteFlow, due_s: float, seq: int) -> None:
        """The network knows, as of `due_s`, when a flow to here will be through; what it said before no longer holds."""
        received = KVReceived(action.request_id, action.attempt)
        if received in self._pulls:
            self._ends[received] = received
            self._due.pop(received, None)
            self.inbox.put(action.at_s, NETWORK, seq, received)
        elif (late_s := self.clock.now_s() - due_s) > 0:
            self.inbox.message_late_s.append(late_s)  # the request has joined at the time that was told first

    def _handle(self, event: tuple, now_s: float, sender: int) -> None:
        index = self.address
        actions = self.node.machine.handle(event, now_s)
        self.record(index, now_s, event, actions)
        for action in actions:
            kind = type(action)
            if kind is Send:
                self._on_sending(action.message)
                self.send_message(index, action.to, now_s, action.message)
            elif kind is RunSteps:
                self.inbox.put(self.node.start(action, now_s), index, self.next_seq(), BOUNDARY)
            elif kind is CutRun:
                if self.node.cut(now_s, sender):
                    self.inbox.put(self.node.end_s, index, self.next_seq(), BOUNDARY)
            elif kind is FreeKV:
                self.transfer.free(*action)
            elif kind is SetTimer:
                self.inbox.put(action.at_s, index, self.next_seq(), action.message)
        if type(event) is Cancelled:
            self._due.pop(event, None)
            self._ends.pop(event, None)
            if (pull := self._pulls.pop(event, None)) is not None:
                pull.cancel()

    def _on_sending(self, message: tuple) -> None:
        """The payload follows the messages: it is held from its offer on, and pulled as soon as its flow may start."""
        if type(message) is KVReady:
            self.transfer.hold(message.request_id, message.attempt, message.num_tokens)
        elif type(message) is FlowRequested:
            num_tokens = message.num_bytes // self._kv_bytes_per_token
            self._start_pull(message.source, message.request_id, message.attempt, num_tokens)

    def _tell_steps(self, start_s: float, boundaries_s: list[float], batch: Batch | None, finished: tuple[int, ...]) -> None:
        fact = Emit(self.address, start_s, tuple(boundaries_s), batch, finished)
        self.record_fact(self.address, boundaries_s[-1], fact)

    def _start_pull(self, source: int, request_id: int, attempt: int, num_tokens: int) -> None:
        key = (request_id, attempt)
        if key not in self._pulls:
            self._pulls[key] = self.spawn(self._pull(source, key, num_tokens))

    async def _pull(self, source: int, key: Key, num_tokens: int) -> None:
        try:
            await self.transfer.pull(self.handles[source], *key, num_tokens)
        except* SourceLost:
            # The scheduler learns of the death itself and calls the pull off: nothing may come of it here.
            await asyncio.get_running_loop().create_future()
        due_s = self._due.pop(key, None)
        if due_s is not None:
            # The flow was through by the model before the payload was here: the request joins now that it is verified.
            now_s = self.clock.now_s()
            self._num_overruns += now_s - due_s > self.settings.overrun_s
            del self._pulls[key], self._ends[key]
            self.inbox.put(now_s, self.address, self.next_seq(), KVReceived(*key))
