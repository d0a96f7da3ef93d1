"""One machine at its host: its state machine, step driver and inbox, and the pulls of the KV caches that it gets."""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

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
    Send,
    SendOutput,
    SetTimer,
)
from emu.execution.emulated import NO_LIMIT, EmulatedExecutor
from emu.execution.protocol import Executor
from emu.execution.real_machines import RealMachines, ThreadExecutor
from emu.runtime.clock import WallClock
from emu.runtime.effects import Effects
from emu.runtime.inbox import Inbox
from emu.runtime.machine_payloads import MachinePayloads
from emu.runtime.step_driver import BOUNDARY, StepDriver
from emu.runtime.transfer_host import TransferHost
from emu.transfer.destination import Pulled, SourceLost, TransferFailed
from emu.transfer.production import TimedProduction
from emu.transfer.source import Key

log = logging.getLogger(__name__)
STEP_END = "step end"  # the event that the step in flight, whose end was not known ahead, is over


class MachineCell(Effects):
    """Machine `index`. It executes its steps if it is one of the `real` machines, or else sleeps.

    What real machines send are KV caches, and with each the output tokens so far. What goes wrong here ends this machine
    alone, through `fail`.
    """

    def __init__(
        self,
        index: int,
        host: TransferHost,
        cluster: Cluster,
        output_tokens: Sequence[int],
        real: RealMachines | None,
        fail: Callable[[Exception], None],
    ) -> None:
        self.address = index
        indices = frozenset() if real is None else real.indices
        self.executor: Executor
        if real is not None and index in indices:
            self.executor = ThreadExecutor(real, cluster, index, output_tokens)
        else:
            stop_ids = frozenset() if real is None else real.stop_ids
            self.executor = EmulatedExecutor(cluster.machines[index].timing, output_tokens, NO_LIMIT, stop_ids)
        self.driver = StepDriver(cluster.make_machine(index), self.executor, self._tell_steps)
        self.payloads = MachinePayloads(cluster, self.executor, indices, host.transfer_settings.timeout_s)
        self.inbox: Inbox  # from the start on
        self.is_dead = False
        self._host = host
        self._fail = fail
        self._clock: WallClock
        self._kv_bytes_per_token = cluster.model.kv_bytes_per_token
        self._held: set[Key] = set()
        self._pulls: dict[Key, asyncio.Task[Pulled | None]] = {}
        self._ends: dict[Key, KVReceived] = {}  # of each flow the newest notice that it is through, told ahead of its time
        self._due: dict[Key, float] = {}  # flows that are through by the model before the payload is
        self._num_overruns = 0

    # --- what its host calls ------------------------------------------------------------------------------------------

    async def open_executor(self) -> int | None:
        """Get ready to execute. Returns the number of KV blocks there are, None where that is as declared.

        Raises EngineError.
        """
        return await self.executor.open(self._on_step, self.payloads.on_layer)

    def on_start(self) -> None:
        """The clock of the host is set."""
        self._clock = self._host.clock
        self.inbox = Inbox(self._clock, self._on_event, self._fail)
        if self.executor.probe_interval_s:
            self._host.spawn(self._probe_speed(self.executor.probe_interval_s))

    def on_message(self, sender: int, due_s: float, seq: int, event: tuple) -> None:
        """A control message to this machine has come."""
        if self.is_over:
            return
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
        return not self.executor.has_kv_caches and self.driver.machine.would_pull(offer)

    def tell_passed(self) -> None:
        """Tell of the steps that have ended: without this a quiet machine would tell of none for seconds."""
        if not self.is_dead:
            self.driver.tell_passed(min(self._clock.now_s(), self.inbox.next_s), SCHEDULER)

    def take_overruns(self) -> int:
        """How many transfers have overrun since last taken."""
        taken, self._num_overruns = self._num_overruns, 0
        return taken

    def end(self) -> None:
        """The machine is dead: it handles nothing more, and what it held and pulled is dropped."""
        self.is_dead = True
        for key in list(self._held):
            self._free(key)
        for pull in self._pulls.values():
            pull.cancel()

    @property
    def is_over(self) -> bool:
        """Whether this machine is dead or the run has ended."""
        return self.is_dead or self._host.stopped.is_set()

    async def _probe_speed(self, interval_s: float) -> None:
        """Now and then have the executor time probe steps, as long as there is nothing else to do."""
        while not self.is_over:
            await asyncio.sleep(interval_s)
            try:
                for phase, step_s in await self.executor.probe(lambda: self.driver.is_idle and not self.is_over):
                    self._record_fact(self._clock.now_s(), ProbeStepRun(self.address, phase, step_s))
            except Exception as error:
                self._fail(error)
                return

    def _record_fact(self, now_s: float, fact: tuple) -> None:
        self._host.record_fact(self.address, now_s, fact)

    def _put(self, at_s: float, event: Any) -> None:
        """An event of this machine's own, at its time."""
        self.inbox.put(at_s, self.address, self._host.next_seq(), event)

    # --- steps --------------------------------------------------------------------------------------------------------

    def _tell_steps(self, start_s: float, boundaries_s: list[float], batch: Batch | None, finished: tuple[int, ...]) -> None:
        fact = TokensEmitted(self.address, start_s, tuple(boundaries_s), batch, finished)
        self._record_fact(boundaries_s[-1], fact)

    def _on_step(self, error: Exception | None, end_local: float) -> None:
        if error is not None:
            self._fail(error)
        elif not self.is_over:
            self._put(self._clock.emulated_s(end_local), STEP_END)

    def _end_step(self, now_s: float) -> None:
        for output in self.executor.outputs():
            self._record_fact(now_s, output)
        self.payloads.on_step_end()
        self.executor.end_step()
        self.driver.step_ended(now_s)

    def _on_boundary(self, now_s: float, sender: int) -> None:
        if self.driver.end_s != now_s:
            return  # the run was cut
        if (done := self.driver.done()) is not None:
            self._handle(done, now_s, sender)
        elif self.driver.end_s < math.inf:
            self._put(self.driver.end_s, BOUNDARY)

    # --- events and actions -------------------------------------------------------------------------------------------

    def _on_event(self, event: Any, now_s: float, sender: int) -> None:
        if self.is_over:
            return
        if event is STEP_END:
            self._end_step(now_s)
        if event is STEP_END or event is BOUNDARY:
            self._on_boundary(now_s, sender)
            return
        if type(event) is KVReceived and self.driver.came_in_vain(event):
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
        if (passed := self.driver.passed(event, now_s, sender)) is not None:
            self._handle(passed, now_s, sender)
        self._handle(event, now_s, sender)

    def _on_flow_end_set(self, event: FlowEndSet, due_s: float, seq: int) -> None:
        """The network knows, as of `due_s`, when a flow to here will be through."""
        key = event[:2]
        if key in self._pulls:
            self._ends[key] = received = KVReceived(*key)
            self._due.pop(key, None)
            self.inbox.put(event.at_s, NETWORK, seq, received)
        elif (late_s := self._clock.now_s() - due_s) > 0:
            self.inbox.message_late_s.append(late_s)  # the request has joined at the time that was told first

    def _handle(self, event: tuple, now_s: float, sender: int) -> None:
        actions = self.driver.machine.handle(event, now_s)
        self._host.record(self.address, now_s, event, actions)
        self.perform(self.address, actions, now_s, sender)

    def send(self, address: int, action: Send, now_s: float, sender: int) -> None:
        self._host.post(address, action.to, now_s, action.message)

    def run_steps(self, address: int, action: RunSteps, now_s: float, sender: int) -> None:
        if (end_s := self.driver.start(action, now_s)) < math.inf:
            self._put(end_s, BOUNDARY)

    def cut_run(self, address: int, action: CutRun, now_s: float, sender: int) -> None:
        if self.driver.cut(now_s, sender):
            self._put(self.driver.end_s, BOUNDARY)

    def set_timer(self, address: int, action: SetTimer, now_s: float, sender: int) -> None:
        self._put(action.at_s, action.message)

    def send_output(self, address: int, action: SendOutput, now_s: float, sender: int) -> None:
        message = action.message
        if output_ids := self.executor.output_ids(message.request_id, message.attempt):
            message = message._replace(output_ids=output_ids)
        self._host.post(address, action.to, now_s, message)

    def resume_output(self, address: int, action: ResumeOutput, now_s: float, sender: int) -> None:
        self.executor.resume(*action)

    # --- KV caches: the payload follows the messages ------------------------------------------------------------------

    def offer_kv(self, address: int, action: OfferKV, now_s: float, sender: int) -> None:
        self._hold(action.offer)
        self._host.post(address, action.to, now_s, action.offer)

    def pull_kv(self, address: int, action: PullKV, now_s: float, sender: int) -> None:
        flow = action.flow
        num_tokens = flow.num_bytes // self._kv_bytes_per_token
        self._start_pull(flow.source, flow.request_id, flow.attempt, num_tokens, flow.produced_until_s)
        self._host.post(address, NETWORK, now_s, flow)

    def free_kv(self, address: int, action: FreeKV, now_s: float, sender: int) -> None:
        # Two control latencies late: the destination may have started to pull before the cancel reached it.
        at_s = now_s + 2 * self._host.settings.control_latency_s
        asyncio.get_running_loop().call_at(self._clock.local(at_s), self._free, (action.request_id, action.attempt))

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
        key, local = (offer.request_id, offer.attempt), self._clock.local
        timed = TimedProduction(local(offer.produced_from_s), local(offer.produced_until_s))
        self._held.add(key)
        self._host.transfer.hold(key, *self.payloads.held(key, offer.num_tokens, timed))

    def _free(self, key: Key) -> None:
        self._held.discard(key)
        self._host.transfer.free(key)
        self.executor.drop(*key)

    def _start_pull(self, source: int, request_id: int, attempt: int, num_tokens: int, until_s: float) -> None:
        key = (request_id, attempt)
        if key not in self._pulls:
            self._pulls[key] = self._host.spawn(self._pull(source, key, num_tokens, self._clock.local(until_s)))

    async def _pull(self, source: int, key: Key, num_tokens: int, until_local: float) -> Pulled | None:
        """What has been pulled; None if that is nothing."""
        pulled = None
        if self.payloads.scale:
            try:
                payload = await self.payloads.expected(source, key, num_tokens)
                host = self._host.settings.host_of(source)
                pulled = await self._host.transfer.pull(host, key, payload, until_local)
                self.executor.complete(*key, payload.trailer)  # the output tokens came with the last byte
            except SourceLost as lost:
                # The scheduler learns of the death itself and cancels the attempt, unless only the stream between us is lost.
                await asyncio.sleep(2 * self._host.settings.heartbeat_s)
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
        return -math.inf if pulled is None else self._clock.emulated_s(pulled.verified_s)

    def _join_late(self, key: Key, modelled_s: float, verified_s: float) -> None:
        self._num_overruns += verified_s - modelled_s > self._host.settings.overrun_s
        self._put(verified_s, KVReceived(*key))

    def _complete(self, key: Key, pulled: Pulled | None, modelled_s: float) -> None:
        """The payload is here, and its flow was through by the model at `modelled_s`."""
        del self._pulls[key], self._ends[key]
        if pulled is not None:
            emulated_s, dilation = self._clock.emulated_s, self._clock.dilation
            started_s, fetched_s, verified_s = map(emulated_s, (pulled.start_s, pulled.fetched_s, pulled.verified_s))
            busy = (pulled.wire_s / dilation, pulled.verify_s / dilation)
            sizes = (pulled.num_bytes, pulled.num_messages)
            fact = PayloadMoved(*key, *sizes, started_s, modelled_s, fetched_s, verified_s, *busy)
            self._record_fact(self._clock.now_s(), fact)

    def _lose(self, key: Key, cause: str) -> None:
        """The pull has failed for good. One that was ahead of its offer is tried again when the offer is due."""
        self._forget_pull(key)
        self._put(self._clock.now_s(), KVLost(*key, cause))
