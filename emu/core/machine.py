"""One machine: its queues, its decode batch and its KV blocks. It prefills and decodes whatever it is given.

A prompt passes `prompts` (waiting) -> `prefilling` (the step in flight) -> `holding`, until the decode machine has pulled its
KV cache, or straight to `ready` where it decodes here. A handed-over request passes `inbound` (no blocks yet) -> `pulling` ->
`ready`. Everything `ready` joins the decode batch at the next boundary.

What is decided at a boundary depends on this state alone. So a run of many steps, cut at the next boundary when something
arrives and told of the steps that have passed before anything else happens, decides just what single steps would have.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from emu.core.attempts import Attempts
from emu.core.batch import Batch, DecodeJoin, Prefill
from emu.core.batching.policy import BatchingPolicy
from emu.core.decode_batch import DecodeBatch
from emu.core.facts import KVHandedOver
from emu.core.handover import Handover
from emu.core.kv_cache import KVCache
from emu.core.message import Message
from emu.core.messages import (
    NETWORK,
    SCHEDULER,
    Assigned,
    Cancelled,
    CutRun,
    DropAttempt,
    FreeKV,
    KVLost,
    KVPulled,
    KVReady,
    KVReceived,
    KVTransferFailed,
    KVTransferred,
    PrefillDone,
    RequestEvicted,
    RequestFinished,
    RequestRejected,
    ResumeOutput,
    RunSteps,
    Send,
    SendOutput,
    StepsDone,
    StepsPassed,
    make,
)
from emu.core.prompt_queue import PromptQueue
from emu.core.sequence import Sequence


class Machine:
    """State machine of machine `index`.

    At most `max_held_fraction` of its blocks are held for hand-overs, because two machines that each held everything for
    the other would wait for ever. A prompt that needs more is rejected, as is one larger than the whole cache.
    `handover` says how KV caches leave.
    """

    def __init__(
        self, index: int, kv: KVCache, batching: BatchingPolicy, handover: Handover, max_held_fraction: float = 0.5
    ) -> None:
        self.index = index
        self.kv = kv
        self.batching = batching
        self.handover = handover
        self.prompts = PromptQueue(index, kv, max_held_blocks(max_held_fraction, kv.num_blocks))
        self.prefilling: list[Sequence] = []
        self.holding: dict[int, Sequence] = {}
        self.inbound: deque[Sequence] = deque()
        self.pulling: dict[int, Sequence] = {}
        self.ready: dict[int, Sequence] = {}
        self.decodes = DecodeBatch(kv)
        self.num_steps_left = 0  # of the run in flight, the step in flight included; 0 = idle
        self._cut = False
        self._attempts = Attempts()
        self._handlers: dict[type, Callable[[Any, float, list[Message]], None]] = {
            Assigned: self._on_assigned,
            KVReady: self._on_kv_ready,
            KVReceived: self._on_kv_received,
            KVLost: self._on_kv_lost,
            KVPulled: self._on_kv_pulled,
            Cancelled: self._on_cancelled,
            StepsPassed: self._on_steps_passed,
            StepsDone: self._on_steps_done,
        }

    def handle(self, event: Message, now_s: float) -> list[Message]:
        """Take one event and return what is to be done, in order."""
        actions: list[Message] = []
        self._handlers[type(event)](event, now_s, actions)
        return actions

    def would_pull(self, event: KVReady) -> bool:
        """Whether this hand-over, if it were offered now, would get its blocks at once."""
        num_blocks = self.kv.blocks_for(event.num_tokens + 1)
        return (
            not self._attempts.is_stale(event, [])
            and not self.inbound
            and self.kv.can_admit(num_blocks, self.prompts.num_held_blocks)
        )

    # --- events -------------------------------------------------------------------------------------------------------

    def _on_assigned(self, event: Assigned, now_s: float, actions: list[Message]) -> None:
        seq = self._accept(event, now_s, actions)
        if seq is None:
            return
        if event.output_ids:
            actions.append(ResumeOutput(seq.request_id, seq.attempt, event.output_ids))
        decode_on = seq.decode_on = event.decode_on
        # Where the decode follows here, its first slot is reserved with the prompt.
        seq.num_blocks = self.kv.blocks_for(seq.num_cached + (decode_on == self.index))
        if decode_on != self.index and seq.num_blocks > self.prompts.max_held_blocks:
            cause = (
                f"{seq.num_cached} tokens need {seq.num_blocks} KV blocks held for their hand-over; "
                f"machine {self.index} holds at most {self.prompts.max_held_blocks}"
            )
            actions.append(Send(SCHEDULER, RequestRejected(seq.request_id, seq.attempt, cause)))
            return
        self.prompts.waiting.append(seq)
        self._wake(now_s, actions)

    def _on_kv_ready(self, event: KVReady, now_s: float, actions: list[Message]) -> None:
        seq = self._accept(event, now_s, actions)
        if seq is not None:
            seq.offer = event
            seq.ready_s = now_s
            self.inbound.append(seq)
            self._admit_inbound(now_s, actions)

    def _on_kv_received(self, event: KVReceived, now_s: float, actions: list[Message]) -> None:
        request_id, attempt = event
        seq = self._attempts.current(self.pulling, event, actions)
        if seq is None:
            return
        del self.pulling[request_id]
        self.ready[request_id] = seq
        source = seq.offer.source
        transfer = (request_id, attempt, source, self.index, seq.num_cached, seq.ready_s, seq.pull_s)
        actions += (
            make(Send, (source, make(KVPulled, event))),
            make(Send, (SCHEDULER, make(KVTransferred, event))),
            make(KVHandedOver, transfer),
        )
        self._wake(now_s, actions)

    def _on_kv_lost(self, event: KVLost, now_s: float, actions: list[Message]) -> None:
        request_id, attempt, cause = event
        if self._attempts.current(self.pulling, event, actions) is not None:
            actions.append(Send(SCHEDULER, KVTransferFailed(request_id, attempt, cause)))
            self._on_cancelled(Cancelled(request_id, attempt), now_s, actions)

    def _on_kv_pulled(self, event: KVPulled, now_s: float, actions: list[Message]) -> None:
        seq = self._attempts.current(self.holding, event, actions)
        if seq is not None:
            self._release_held(seq, actions)
            self._blocks_came_free(now_s, actions)

    def _on_cancelled(self, event: Cancelled, now_s: float, actions: list[Message]) -> None:
        """Forget the attempts of a request up to this one, wherever they are here."""
        request_id, attempt = event
        if not self._attempts.call_off(request_id, attempt):
            return
        actions.append(DropAttempt(request_id, attempt))
        is_over = self._attempts.is_over
        for queue in (self.prompts.waiting, self.inbound):
            for seq in [seq for seq in queue if is_over(seq)]:
                queue.remove(seq)
                if seq.num_prefilled:
                    self.prompts.release(seq)
        if is_over(self.holding.get(request_id)):
            self._release_held(self.holding[request_id], actions)
        if is_over(self.pulling.get(request_id)):
            actions.append(Send(NETWORK, event))
        for place in (self.pulling, self.ready, self.decodes.paused):
            if is_over(place.get(request_id)):
                self.kv.release(place.pop(request_id).num_blocks)
        if is_over(self.decodes.active.get(request_id)):
            self._wake(now_s, actions)  # what is in the step in flight goes at its boundary
        self._blocks_came_free(now_s, actions)

    def _on_steps_passed(self, event: StepsPassed, now_s: float, actions: list[Message]) -> None:
        (num_steps,) = event
        self.kv.advance(num_steps)
        self.num_steps_left -= num_steps

    def _on_steps_done(self, event: StepsDone, now_s: float, actions: list[Message]) -> None:
        num_steps, finished = event
        decodes = self.decodes
        active = decodes.active
        self.num_steps_left = 0
        if active:
            self.kv.end_run(num_steps)
            for request_id in finished:
                seq = active.get(request_id)
                if seq is not None:
                    decodes.remove(seq)
                    if not (self._attempts and self._attempts.is_over(seq)):
                        actions.append(make(Send, (SCHEDULER, make(RequestFinished, (request_id, seq.attempt)))))
        if self.prefilling:
            self._end_prefills(finished, actions)
        if self._attempts:
            for seq in [seq for seq in active.values() if self._attempts.is_over(seq)]:
                decodes.remove(seq)
                decodes.leaves.append(seq.request_id)
        self._start(now_s, actions)

    # --- the next step ------------------------------------------------------------------------------------------------

    def _wake(self, now_s: float, actions: list[Message]) -> None:
        """Something may join: start if idle, else look again at the next boundary."""
        if not self.num_steps_left:
            self._start(now_s, actions)
        elif self.num_steps_left > 1 and not self._cut:
            self._cut = True
            actions.append(CutRun())

    def _start(self, now_s: float, actions: list[Message]) -> None:
        """Build the next step from what is here and run it; stay idle where nothing can run."""
        decodes, kv = self.decodes, self.kv
        active = decodes.active
        if active and not kv.grow():
            self._evict(actions)
            kv.grow()
        if self.inbound:
            self._admit_inbound(now_s, actions)
        ready, waiting = self.ready, self.prompts.waiting
        prompts: list[Sequence] = []
        left_out: list[Sequence] = []
        joins: tuple[DecodeJoin, ...] = ()
        leaves: tuple[int, ...] = ()
        if waiting:
            candidates = [*active.values(), *decodes.paused.values(), *ready.values()]
            prompts, left_out = self.batching.next_batch(self.prompts.admissible(), candidates)
            self.prompts.take(prompts)
        if ready or decodes.paused or left_out:
            joins = decodes.form(ready, left_out)
            self.ready = {}
        if decodes.leaves and (prompts or active):
            leaves, decodes.leaves = tuple(decodes.leaves), []
        self._cut = False
        if prompts:
            self.prefilling = prompts
            self.num_steps_left = 1
            prefills = tuple([_prefill(seq) for seq in prompts])
            batch = make(Batch, (prefills, joins, leaves, len(active), decodes.context_tokens, len(left_out)))
            actions.append(make(RunSteps, (batch, 1)))
            self.handover.begin(prompts, batch, self.index, now_s, actions)
        elif active:
            # With prompts waiting, every boundary is a decision.
            self.num_steps_left = num_steps = 1 if waiting else kv.max_num_steps()
            batch = make(Batch, ((), joins, leaves, len(active), decodes.context_tokens, len(left_out)))
            actions.append(make(RunSteps, (batch, num_steps)))

    def _evict(self, actions: list[Message]) -> None:
        for seq in self.decodes.make_room(self.ready):
            actions.append(SendOutput(SCHEDULER, RequestEvicted(seq.request_id, seq.attempt, seq.num_generated)))
            actions.append(DropAttempt(seq.request_id, seq.attempt))

    def _end_prefills(self, finished: tuple[int, ...], actions: list[Message]) -> None:
        prefilled, self.prefilling = self.prefilling, []
        for seq in prefilled:
            request_id, attempt = seq.request_id, seq.attempt
            local = seq.decode_on == self.index
            seq.num_prefilled += seq.num_chunk
            if request_id in finished or (self._attempts and self._attempts.is_over(seq)):
                self.prompts.release(seq)
                if not local:
                    self.handover.abandon(seq, actions)
                if not self._attempts.is_over(seq):
                    actions.append(Send(SCHEDULER, RequestFinished(request_id, attempt)))
                continue
            if seq.num_prefilled < seq.num_cached:  # the last one of the step, at most
                self.prompts.waiting.appendleft(seq)
                continue
            actions.append(make(SendOutput, (SCHEDULER, make(PrefillDone, (request_id, attempt, b"")))))
            seq.num_generated += 1
            if local:
                self.ready[request_id] = seq
            else:
                self.holding[request_id] = seq
                self.handover.offer(seq, self.index, actions)

    # --- memory -------------------------------------------------------------------------------------------------------

    def _admit_inbound(self, now_s: float, actions: list[Message]) -> None:
        """Reserve blocks for offered KV caches, in order, and pull them; the rest wait (back-pressure)."""
        inbound, kv = self.inbound, self.kv
        num_held_blocks = self.prompts.num_held_blocks
        while inbound and kv.can_admit(num_blocks := kv.blocks_for(inbound[0].num_cached + 1), num_held_blocks):
            seq = inbound.popleft()
            kv.reserve(num_blocks)
            seq.num_blocks = num_blocks
            seq.pull_s = now_s
            self.pulling[seq.request_id] = seq
            self.handover.pull(seq, self.index, actions)
        # The run in flight was bounded by the blocks that were free when it started.
        if self.num_steps_left > 1 and not self._cut and kv.max_num_steps() < self.num_steps_left:
            self._wake(now_s, actions)

    def _blocks_came_free(self, now_s: float, actions: list[Message]) -> None:
        if self.inbound:
            self._admit_inbound(now_s, actions)
        if self.prompts.waiting or self.decodes.paused:
            self._wake(now_s, actions)

    def _release_held(self, seq: Sequence, actions: list[Message]) -> None:
        del self.holding[seq.request_id]
        self.prompts.release(seq)
        actions.append(FreeKV(seq.request_id, seq.attempt))

    # --- stale messages -----------------------------------------------------------------------------------------------

    def _accept(self, event: Assigned | KVReady, now_s: float, actions: list[Message]) -> Sequence | None:
        """The sequence of a new task, unless the attempt was called off or can never fit.

        A new attempt calls off those before it: the scheduler's word of their end comes by another stream, perhaps later.
        """
        request_id, attempt, arrival_s, num_tokens, num_generated = event[:5]
        if attempt > 1 or self._attempts:
            if self._attempts.is_stale(event, actions):
                return None
            self._on_cancelled(Cancelled(request_id, attempt - 1), now_s, actions)
        if num_tokens >= self.kv.num_blocks * self.kv.block_tokens:
            cause = f"{num_tokens} tokens do not fit the {self.kv.num_blocks} KV blocks of machine {self.index}"
            actions.append(Send(SCHEDULER, RequestRejected(request_id, attempt, cause)))
            return None
        return Sequence(request_id, attempt, arrival_s, num_tokens, num_generated)


def max_held_blocks(max_held_fraction: float, num_blocks: int) -> int:
    """How many of a machine's blocks may be held for hand-overs at once."""
    # One block less, because a hand-over takes room for one more token at its destination than at its source.
    return int(max_held_fraction * (num_blocks - 1))


def _prefill(seq: Sequence) -> Prefill:
    num_left = seq.num_cached - seq.num_prefilled - seq.num_chunk
    return make(Prefill, (seq.request_id, seq.attempt, seq.num_chunk, seq.num_generated, seq.num_prefilled, num_left))
