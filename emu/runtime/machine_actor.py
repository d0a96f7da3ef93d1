"""One machine of the cluster as a Ray actor: its state machine, its executor and its end of the KV transfers."""

import asyncio
import logging
import math
from typing import Any

import numpy as np

from emu.core.batch import Batch
from emu.core.cluster import Cluster
from emu.core.facts import PayloadMoved, ProbeStepRun, TokensEmitted
from emu.core.messages import (
    NETWORK,
    SCHEDULER,
    CutRun,
    DropAttempt,
    FlowEndSet,
    FreeKV,
    KVLost,
    KVReady,
    KVReceived,
    OfferKV,
    PullKV,
    ResumeOutput,
    RunSteps,
    SendOutput,
    SetTimer,
)
from emu.execution.emulated import NO_LIMIT, EmulatedExecutor
from emu.execution.protocol import Executor
from emu.execution.real_machines import RealMachines, ThreadExecutor
from emu.runtime.inbox import Inbox
from emu.runtime.machine_payloads import MachinePayloads
from emu.runtime.node import BOUNDARY, Node
from emu.runtime.party import PartySettings
from emu.runtime.transfer_party import TransferParty
from emu.runtime.wire import FrameKind
from emu.transfer.destination import Pulled, SourceLost, TransferFailed
from emu.transfer.production import TimedProduction
from emu.transfer.settings import TransferSettings
from emu.transfer.source import Key

log = logging.getLogger(__name__)
STEP_END = "step end"  # the event that the step in flight, whose end was not known ahead, is over


class MachineActor(TransferParty):
    """Party `index` of the run. It executes its steps if it is one of the `real` machines, or else sleeps.

    What real machines send are KV caches, and with each the output tokens so far.
    """

    def __init__(
        self,
        index: int,
        cluster: Cluster,
        output_tokens: np.ndarray,
        settings: PartySettings,
        transfer_settings: TransferSettings,
        real: RealMachines | None,
    ) -> None:
        super().__init__(index, settings, transfer_settings)
        indices = frozenset() if real is None else real.indices
        self.executor: Executor
        if real is not None and index in indices:
            self.executor = ThreadExecutor(real, cluster, index, output_tokens.tolist())
        else:
            stop_ids = frozenset() if real is None else real.stop_ids
            self.executor = EmulatedExecutor(cluster.machines[index].timing, output_tokens.tolist(), NO_LIMIT, stop_ids)
        self.node = Node(cluster.make_machine(index), self.executor, self._tell_steps)
        self.inbox: Inbox
        self._kv_bytes_per_token = cluster.model.kv_bytes_per_token
        self._payloads = MachinePayloads(cluster, self.executor, indices, transfer_settings.timeout_s)
        self._pulls: dict[Key, asyncio.Task[Pulled | None]] = {}
        self._ends: dict[Key, KVReceived] = {}  # of each flow the newest notice that it is through, told ahead of its time
        self._due: dict[Key, float] = {}  # flows that are through by the model before the payload is
        self._num_overruns = 0

    async def open_executor(self) -> int | None:
        """Get ready to execute. Returns the number of KV blocks there are, None where that is as declared.

        Raises EngineError.
        """
        return await self.executor.open(self._on_step, self._payloads.on_layer)

    async def move(self, payload_scale: float, max_tokens: int) -> None:
        """From now on this fraction of the bytes of KV caches, of `max_tokens` tokens at most, is moved; 0 moves none."""
        self._payloads.scale = payload_scale
        await self.touch(self._payloads.num_bytes(max_tokens))

    # --- party --------------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        self.inbox = Inbox(self.clock, self._on_event, self.fail)
        self.spawn(self.repeat(self.settings.heartbeat_s / 4, self._beat))
        if self.executor.probe_interval_s:
            self.spawn(self._probe_speed(self.executor.probe_interval_s))

    def on_message(self, sender: int, receiver: int, due_s: float, seq: int, event: tuple) -> None:
        if type(event) is FlowEndSet:
            self._on_flow_end_set(event, due_s, seq)
            return
        self.inbox.put_message(due_s, sender, seq, event)
        if type(event) is KVReady and self._pulls_ahead(event):
            # Like every message, the pull goes out ahead of the time at which the model says it arrives; what decides when
            # the request joins is the later of the modelled end and the verified copy.
            self._start_pull(event.source, event.request_id, event.attempt, event.num_tokens, event.produced_until_s)

    def _pulls_ahead(self, offer: KVReady) -> bool:
        """Whether to pull before the state machine has reserved the blocks: it will.

        Not into KV blocks: if they were then not reserved after all, steps would lack them.
        """
        return not self.executor.has_kv_caches and self.node.machine.would_pull(offer)

    def before_report(self) -> None:
        # Tokens are told when something happens; without this a quiet machine would tell none for seconds.
        self.node.tell_passed(min(self.clock.now_s(), self.inbox.next_s), SCHEDULER)

    def measurements(self) -> tuple[list[float], list[float], tuple]:
        num_overruns, self._num_overruns = self._num_overruns, 0
        return *self.inbox.take_lateness(), (*self.transfer.take_counts(), num_overruns)

    def _beat(self) -> None:
        if SCHEDULER in self.channels:
            self.channels[SCHEDULER].send(FrameKind.HEARTBEAT)

    async def _probe_speed(self, interval_s: float) -> None:
        """Now and then have the executor time probe steps, as long as there is nothing else to do."""
        while not self.stopped.is_set():
            await asyncio.sleep(interval_s)
            try:
                for phase, step_s in await self.executor.probe(lambda: self.node.is_idle and not self.stopped.is_set()):
                    self.record_fact(self.address, self.clock.now_s(), ProbeStepRun(self.address, phase, step_s))
            except Exception as error:
                self.fail(error)
                return

    # --- steps --------------------------------------------------------------------------------------------------------

    def _tell_steps(self, start_s: float, boundaries_s: list[float], batch: Batch | None, finished: tuple[int, ...]) -> None:
        fact = TokensEmitted(self.address, start_s, tuple(boundaries_s), batch, finished)
        self.record_fact(self.address, boundaries_s[-1], fact)

    def _on_step(self, error: Exception | None, end_local: float) -> None:
        if error is not None:
            self.fail(error)
        elif not self.stopped.is_set():
            self.inbox.put(self.clock.emulated_s(end_local), self.address, self.next_seq(), STEP_END)

    def _end_step(self, now_s: float) -> None:
        for output in self.executor.outputs():
            self.record_fact(self.address, now_s, output)
        self._payloads.on_step_end()
        self.executor.end_step()
        self.node.step_ended(now_s)

    def _on_boundary(self, now_s: float, sender: int) -> None:
        if self.node.end_s != now_s:
            return  # the run was cut
        if (done := self.node.done()) is not None:
            self._handle(done, now_s, sender)
        elif self.node.end_s < math.inf:
            self.inbox.put(self.node.end_s, self.address, self.next_seq(), BOUNDARY)

    # --- events and actions -------------------------------------------------------------------------------------------

    def _on_event(self, event: Any, now_s: float, sender: int) -> None:
        if self.stopped.is_set():
            return
        if event is STEP_END:
            self._end_step(now_s)
        if event is STEP_END or event is BOUNDARY:
            self._on_boundary(now_s, sender)
            return
        if type(event) is KVReceived and self.node.came_in_vain(event):
            return
        if type(event) is KVReceived and sender == NETWORK:
            key = event[:2]
            if self._ends.get(key) is not event:
                return  # called off, or the flow has got another share since
            pull = self._pulls[key]
            if not pull.done():  # what was not verified never joins
                self._due[key] = now_s
                return
            self._complete(key, pull.result(), now_s)
            if (verified_s := self._verified_s(pull.result())) > now_s:
                # Verified between that time and now, as this event is handled late: it joins when it was verified.
                self._join_late(key, now_s, verified_s)
                return
        if (passed := self.node.passed(event, now_s, sender)) is not None:
            self._handle(passed, now_s, sender)
        self._handle(event, now_s, sender)

    def _on_flow_end_set(self, event: FlowEndSet, due_s: float, seq: int) -> None:
        """The network knows, as of `due_s`, when a flow to here will be through."""
        key = event[:2]
        if key in self._pulls:
            self._ends[key] = received = KVReceived(*key)
            self._due.pop(key, None)
            self.inbox.put(event.at_s, NETWORK, seq, received)
        elif (late_s := self.clock.now_s() - due_s) > 0:
            self.inbox.message_late_s.append(late_s)  # the request has joined at the time that was told first

    def _handle(self, event: tuple, now_s: float, sender: int) -> None:
        actions = self.node.machine.handle(event, now_s)
        self.record(self.address, now_s, event, actions)
        self.perform(self.address, actions, now_s, sender)

    def run_steps(self, address: int, action: RunSteps, now_s: float, sender: int) -> None:
        if (end_s := self.node.start(action, now_s)) < math.inf:
            self.inbox.put(end_s, address, self.next_seq(), BOUNDARY)

    def cut_run(self, address: int, action: CutRun, now_s: float, sender: int) -> None:
        if self.node.cut(now_s, sender):
            self.inbox.put(self.node.end_s, address, self.next_seq(), BOUNDARY)

    def set_timer(self, address: int, action: SetTimer, now_s: float, sender: int) -> None:
        self.inbox.put(action.at_s, address, self.next_seq(), action.message)

    def send_output(self, address: int, action: SendOutput, now_s: float, sender: int) -> None:
        message = action.message
        if output_ids := self.executor.output_ids(message.request_id, message.attempt):
            message = message._replace(output_ids=output_ids)
        self.post(address, action.to, now_s, message)

    def resume_output(self, address: int, action: ResumeOutput, now_s: float, sender: int) -> None:
        self.executor.resume(*action)

    # --- KV caches: the payload follows the messages ------------------------------------------------------------------

    def offer_kv(self, address: int, action: OfferKV, now_s: float, sender: int) -> None:
        self._hold(action.offer)
        self.post(address, action.to, now_s, action.offer)

    def pull_kv(self, address: int, action: PullKV, now_s: float, sender: int) -> None:
        flow = action.flow
        num_tokens = flow.num_bytes // self._kv_bytes_per_token
        self._start_pull(flow.source, flow.request_id, flow.attempt, num_tokens, flow.produced_until_s)
        self.post(address, NETWORK, now_s, flow)

    def free_kv(self, address: int, action: FreeKV, now_s: float, sender: int) -> None:
        # Two control latencies late: the destination may have started to pull before the cancel reached it.
        at_s = now_s + 2 * self.settings.control_latency_s
        asyncio.get_running_loop().call_at(self.clock.local(at_s), self._free, (action.request_id, action.attempt))

    def drop_attempt(self, address: int, action: DropAttempt, now_s: float, sender: int) -> None:
        if (pull := self._forget_pull((action.request_id, action.attempt))) is not None:
            pull.cancel()
        self.executor.drop(*action)

    def _forget_pull(self, key: Key) -> asyncio.Task | None:
        """Have nothing of this attempt join; returns its pull, if there is one."""
        self._due.pop(key, None)
        self._ends.pop(key, None)
        return self._pulls.pop(key, None)

    def _hold(self, offer: KVReady) -> None:
        key, local = (offer.request_id, offer.attempt), self.clock.local
        timed = TimedProduction(local(offer.produced_from_s), local(offer.produced_until_s))
        self.transfer.hold(key, *self._payloads.held(key, offer.num_tokens, timed))

    def _free(self, key: Key) -> None:
        self.transfer.free(key)
        self.executor.drop(*key)

    def _start_pull(self, source: int, request_id: int, attempt: int, num_tokens: int, until_s: float) -> None:
        key = (request_id, attempt)
        if key not in self._pulls:
            self._pulls[key] = self.spawn(self._pull(source, key, num_tokens, self.clock.local(until_s)))

    async def _pull(self, source: int, key: Key, num_tokens: int, until_local: float) -> Pulled | None:
        """What has been pulled; None if that is nothing."""
        pulled = None
        if self._payloads.scale:
            try:
                payload = await self._payloads.expected(source, key, num_tokens)
                pulled = await self.transfer.pull(source, key, payload, until_local)
                self.executor.complete(*key, payload.trailer)  # the output tokens came with the last byte
            except SourceLost as lost:
                # The scheduler learns of the death itself and cancels the attempt, unless only the stream between us is lost.
                await asyncio.sleep(2 * self.settings.heartbeat_s)
                self._lose(key, f"KV transfer: {lost}, but not for the scheduler")
                return None
            except Exception as error:
                if not isinstance(error, TransferFailed):
                    log.exception("pull of request %d", key[0])
                    error = RuntimeError(f"{type(error).__name__}: {error}")
                self._lose(key, f"KV transfer from machine {source}: {error}")
                return None
        if key in self._due:
            # The flow was through by the model before the payload was here: the request joins now that it is verified.
            due_s = self._due.pop(key)
            self._complete(key, pulled, due_s)
            self._join_late(key, due_s, self._verified_s(pulled))
        return pulled

    def _verified_s(self, pulled: Pulled | None) -> float:
        """When a payload was here and verified; where there is none, always."""
        return -math.inf if pulled is None else self.clock.emulated_s(pulled.verified_s)

    def _join_late(self, key: Key, modelled_s: float, verified_s: float) -> None:
        self._num_overruns += verified_s - modelled_s > self.settings.overrun_s
        self.inbox.put(verified_s, self.address, self.next_seq(), KVReceived(*key))

    def _complete(self, key: Key, pulled: Pulled | None, modelled_s: float) -> None:
        """The payload is here, and its flow was through by the model at `modelled_s`."""
        del self._pulls[key], self._ends[key]
        if pulled is not None:
            emulated_s, dilation = self.clock.emulated_s, self.clock.dilation
            started_s, fetched_s, verified_s = map(emulated_s, (pulled.start_s, pulled.fetched_s, pulled.verified_s))
            busy = (pulled.wire_s / dilation, pulled.verify_s / dilation)
            sizes = (pulled.num_bytes, pulled.num_messages)
            fact = PayloadMoved(*key, *sizes, started_s, modelled_s, fetched_s, verified_s, *busy)
            self.record_fact(self.address, self.clock.now_s(), fact)

    def _lose(self, key: Key, cause: str) -> None:
        """The pull has failed for good. One that was ahead of its offer is tried again when the offer is due."""
        self._forget_pull(key)
        self.inbox.put(self.clock.now_s(), self.address, self.next_seq(), KVLost(*key, cause))
