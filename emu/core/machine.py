"""One machine: its queues, its decode batch and its KV blocks. It prefills and decodes whatever it is given.

A prompt passes `waiting` -> `prefilling` (the step in flight) -> `holding`, until the decode machine has pulled its KV
cache, or straight to `ready` where it decodes here. A handed-over request passes `inbound` (no blocks yet) -> `pulling` ->
`ready`. Everything `ready` joins the decode batch at the next boundary.

What is decided at a boundary depends on this state alone. So a run of many steps, cut at the next boundary when something
arrives and told of the steps that have passed before anything else happens, decides just what single steps would have.
"""

from collections import deque
from collections.abc import Iterator

from emu.core.batching.policy import BatchingPolicy
from emu.core.decode_batch import DecodeBatch
from emu.core.kv_cache import KVCache
from emu.core.messages import (
    NETWORK,
    SCHEDULER,
    Assigned,
    Batch,
    Cancelled,
    CutRun,
    DropStale,
    Emit,
    FlowRequested,
    FreeKV,
    HoldKV,
    KVPulled,
    KVReady,
    KVReceived,
    KVTransferred,
    Prefill,
    PrefillDone,
    Pull,
    RecordTransfer,
    RequestEvicted,
    RequestFinished,
    RequestRejected,
    RunSteps,
    Send,
    StepsDone,
    StepsPassed,
)
from emu.core.sequence import Sequence


class Machine:
    """State machine of machine `index`.

    At most `max_held_fraction` of its blocks are held for hand-overs, because two machines that each held everything for
    the other would wait for ever. A prompt that needs more is rejected, as is one larger than the whole cache.
    """

    def __init__(
        self, index: int, kv: KVCache, batching: BatchingPolicy, kv_bytes_per_token: int, max_held_fraction: float = 0.5
    ) -> None:
        self.index = index
        self.kv = kv
        self.batching = batching
        self.kv_bytes_per_token = kv_bytes_per_token
        # One block less, because a hand-over takes room for one more token at its destination than at its source.
        self.max_held_blocks = int(max_held_fraction * (kv.num_blocks - 1))
        self.num_held_blocks = 0
        self.waiting: deque[Sequence] = deque()
        self.prefilling: list[Sequence] = []
        self.holding: dict[int, Sequence] = {}
        self.inbound: deque[Sequence] = deque()
        self.pulling: dict[int, Sequence] = {}
        self.ready: dict[int, Sequence] = {}
        self.decodes = DecodeBatch(kv)
        self.num_steps_left = 0  # of the run in flight, the step in flight included; 0 = idle
        self._cut = False
        self._batch: Batch | None = None  # the run's, until its first steps are told
        self._step_start_s = 0.0
        self._called_off: dict[int, int] = {}  # request -> newest attempt that was cancelled
        self._handlers = {
            Assigned: self._on_assigned,
            KVReady: self._on_kv_ready,
            KVReceived: self._on_kv_received,
            KVPulled: self._on_kv_pulled,
            Cancelled: self._on_cancelled,
            StepsPassed: self._on_steps_passed,
            StepsDone: self._on_steps_done,
        }

    def handle(self, event: tuple, now_s: float) -> list[tuple]:
        """Take one event and return what is to be done, in order."""
        actions: list[tuple] = []
        self._handlers[type(event)](event, now_s, actions)
        return actions

    def would_pull(self, event: KVReady) -> bool:
        """Whether this hand-over, if it were offered now, would get its blocks at once."""
        num_blocks = self.kv.blocks_for(event.num_tokens + 1)
        is_current = self._called_off.get(event.request_id, 0) < event.attempt
        return is_current and not self.inbound and self.kv.can_admit(num_blocks, self.num_held_blocks)

    # --- events -------------------------------------------------------------------------------------------------------

    def _on_assigned(self, event: Assigned, now_s: float, actions: list[tuple]) -> None:
        seq = self._accept(event, now_s, actions)
        if seq is None:
            return
        seq.decode_on = event.decode_on
        # Where the decode follows here, its first slot is reserved with the prompt.
        seq.num_blocks = self.kv.blocks_for(seq.num_cached + (seq.decode_on == self.index))
        if seq.decode_on != self.index and seq.num_blocks > self.max_held_blocks:
            cause = (
                f"{seq.num_cached} tokens need {seq.num_blocks} KV blocks held for their hand-over; "
                f"machine {self.index} holds at most {self.max_held_blocks}"
            )
            actions.append(Send(SCHEDULER, RequestRejected(seq.request_id, seq.attempt, cause)))
            return
        self.waiting.append(seq)
        self._wake(now_s, actions)

    def _on_kv_ready(self, event: KVReady, now_s: float, actions: list[tuple]) -> None:
        seq = self._accept(event, now_s, actions)
        if seq is None:
            return
        seq.source = event.source
        seq.ready_s = now_s
        self.inbound.append(seq)
        self._admit_inbound(now_s, actions)

    def _on_kv_received(self, event: KVReceived, now_s: float, actions: list[tuple]) -> None:
        seq = self._current(self.pulling, event, actions)
        if seq is None:
            return
        self.ready[seq.request_id] = self.pulling.pop(seq.request_id)
        key = (seq.request_id, seq.attempt)
        actions.append(Send(seq.source, KVPulled(*key)))
        actions.append(Send(SCHEDULER, KVTransferred(*key)))
        actions.append(RecordTransfer(*key, seq.source, self.index, seq.num_cached, seq.ready_s, seq.pull_s))
        self._wake(now_s, actions)

    def _on_kv_pulled(self, event: KVPulled, now_s: float, actions: list[tuple]) -> None:
        seq = self._current(self.holding, event, actions)
        if seq is not None:
            self._release_held(seq, actions)
            self._blocks_came_free(now_s, actions)

    def _on_cancelled(self, event: Cancelled, now_s: float, actions: list[tuple]) -> None:
        self._call_off(event.request_id, event.attempt, now_s, actions)

    def _call_off(self, request_id: int, attempt: int, now_s: float, actions: list[tuple]) -> None:
        """Forget the attempts of a request up to this one, wherever they are here."""
        if self._called_off.get(request_id, 0) >= attempt:
            return
        self._called_off[request_id] = attempt
        for queue in (self.waiting, self.inbound):
            for seq in [seq for seq in queue if self._is_called_off(seq)]:
                queue.remove(seq)
        if self._is_called_off(self.holding.get(request_id)):
            self._release_held(self.holding[request_id], actions)
        for place in (self.pulling, self.ready, self.decodes.paused):
            if self._is_called_off(place.get(request_id)):
                self.kv.release(place.pop(request_id).num_blocks)
        if self._is_called_off(self.decodes.active.get(request_id)):
            self._wake(now_s, actions)  # what is in the step in flight goes at its boundary
        self._blocks_came_free(now_s, actions)

    def _on_steps_passed(self, event: StepsPassed, now_s: float, actions: list[tuple]) -> None:
        self.decodes.advance(len(event.boundaries_s))
        self.num_steps_left -= len(event.boundaries_s)
        self._tell(event.boundaries_s, (), actions)

    def _on_steps_done(self, event: StepsDone, now_s: float, actions: list[tuple]) -> None:
        self.decodes.end_run(len(event.boundaries_s))
        self.num_steps_left = 0
        self._tell(event.boundaries_s, event.finished, actions)
        active = self.decodes.active
        for request_id in event.finished:
            seq = active.get(request_id)
            if seq is not None:
                self.decodes.remove(seq)
                if not self._is_called_off(seq):
                    actions.append(Send(SCHEDULER, RequestFinished(request_id, seq.attempt)))
        if self.prefilling:
            self._end_prefills(event.finished, actions)
        if self._called_off:
            for seq in [seq for seq in active.values() if self._is_called_off(seq)]:
                self.decodes.remove(seq)
                self.decodes.leaves.append(seq.request_id)
        self._start(now_s, actions)

    # --- the next step ------------------------------------------------------------------------------------------------

    def _wake(self, now_s: float, actions: list[tuple]) -> None:
        """Something may join: start if idle, else look again at the next boundary."""
        if not self.num_steps_left:
            self._start(now_s, actions)
        elif self.num_steps_left > 1 and not self._cut:
            self._cut = True
            actions.append(CutRun())

    def _start(self, now_s: float, actions: list[tuple]) -> None:
        """Build the next step from what is here and run it; stay idle where nothing can run."""
        decodes, kv = self.decodes, self.kv
        if decodes.active:
            if kv.growth() > kv.num_free:
                for seq in decodes.make_room(self.ready):
                    event = RequestEvicted(seq.request_id, seq.attempt, seq.num_generated)
                    actions.append(Send(SCHEDULER, event))
            kv.grow()
        if self.inbound:
            self._admit_inbound(now_s, actions)
        prompts: list[Sequence] = []
        left_out: list[Sequence] = []
        if self.waiting:
            candidates = [*decodes.active.values(), *decodes.paused.values(), *self.ready.values()]
            prompts, left_out = self.batching.next_batch(self._admissible_prompts(), candidates)
            for seq in prompts:
                self.waiting.popleft()
                kv.reserve(seq.num_blocks)
                if seq.decode_on != self.index:
                    self.num_held_blocks += seq.num_blocks
        joins: tuple = ()
        if self.ready or decodes.paused or left_out:
            joins = decodes.form(self.ready.values(), left_out)
            self.ready = {}
        if not prompts and not decodes.active:
            return
        self.prefilling = prompts
        prefills = tuple([Prefill(seq.request_id, seq.attempt, seq.num_cached, seq.num_generated) for seq in prompts])
        leaves, decodes.leaves = tuple(decodes.leaves), []
        self._batch = Batch(prefills, joins, leaves, len(decodes.active), decodes.context_tokens, len(left_out))
        self._step_start_s = now_s
        # With prompts waiting, every boundary is a decision.
        self.num_steps_left = 1 if prompts or self.waiting else kv.max_num_steps()
        self._cut = False
        actions.append(RunSteps(self._batch, self.num_steps_left))

    def _admissible_prompts(self) -> Iterator[Sequence]:
        """Waiting prompts in order, up to the first for which there are no blocks."""
        num_blocks = num_held = 0
        for seq in self.waiting:
            num_blocks += seq.num_blocks
            if seq.decode_on != self.index:
                num_held += seq.num_blocks
            can_admit = self.kv.can_admit(num_blocks, self.num_held_blocks)
            if not can_admit or self.num_held_blocks + num_held > self.max_held_blocks:
                return
            yield seq

    def _end_prefills(self, finished: tuple[int, ...], actions: list[tuple]) -> None:
        prefilled, self.prefilling = self.prefilling, []
        for seq in prefilled:
            key = (seq.request_id, seq.attempt)
            local = seq.decode_on == self.index
            if seq.request_id in finished or self._is_called_off(seq):
                self.kv.release(seq.num_blocks)
                if not local:
                    self.num_held_blocks -= seq.num_blocks
                if not self._is_called_off(seq):
                    actions.append(Send(SCHEDULER, RequestFinished(*key)))
                continue
            actions.append(Send(SCHEDULER, PrefillDone(*key)))
            seq.num_generated += 1
            if local:
                self.ready[seq.request_id] = seq
            else:
                self.holding[seq.request_id] = seq
                actions.append(HoldKV(*key, seq.num_cached))
                ready = KVReady(*key, seq.arrival_s, seq.num_cached, seq.num_generated, self.index)
                actions.append(Send(seq.decode_on, ready))

    def _tell(self, boundaries_s: tuple[float, ...], finished: tuple[int, ...], actions: list[tuple]) -> None:
        actions.append(Emit(self.index, self._step_start_s, boundaries_s, self._batch, finished))
        self._step_start_s = boundaries_s[-1]
        self._batch = None

    # --- memory -------------------------------------------------------------------------------------------------------

    def _admit_inbound(self, now_s: float, actions: list[tuple]) -> None:
        """Reserve blocks for offered KV caches, in order, and pull them; the rest wait (back-pressure)."""
        inbound, kv = self.inbound, self.kv
        while inbound and kv.can_admit(num_blocks := kv.blocks_for(inbound[0].num_cached + 1), self.num_held_blocks):
            seq = inbound.popleft()
            kv.reserve(num_blocks)
            seq.num_blocks = num_blocks
            seq.pull_s = now_s
            self.pulling[seq.request_id] = seq
            num_bytes = seq.num_cached * self.kv_bytes_per_token
            flow = FlowRequested(seq.request_id, seq.attempt, seq.source, self.index, num_bytes, now_s, now_s, 1)
            actions.append(Send(NETWORK, flow))
            actions.append(Pull(seq.request_id, seq.attempt, seq.source, seq.num_cached))
        # The run in flight was bounded by the blocks that were free when it started.
        if self.num_steps_left > 1 and not self._cut and kv.max_num_steps() < self.num_steps_left:
            self._wake(now_s, actions)

    def _blocks_came_free(self, now_s: float, actions: list[tuple]) -> None:
        if self.inbound:
            self._admit_inbound(now_s, actions)
        if self.waiting or self.decodes.paused:
            self._wake(now_s, actions)

    def _release_held(self, seq: Sequence, actions: list[tuple]) -> None:
        del self.holding[seq.request_id]
        self.kv.release(seq.num_blocks)
        self.num_held_blocks -= seq.num_blocks
        actions.append(FreeKV(seq.request_id, seq.attempt))

    # --- stale messages -----------------------------------------------------------------------------------------------

    def _accept(self, event: Assigned | KVReady, now_s: float, actions: list[tuple]) -> Sequence | None:
        """The sequence of a new task, unless the attempt was called off or can never fit.

        A new attempt calls off those before it: the scheduler's word of their end comes by another stream, perhaps later.
        """
        if self._called_off.get(event.request_id, 0) >= event.attempt:
            actions.append(DropStale(event.request_id, event.attempt, type(event).__name__))
            return None
        self._call_off(event.request_id, event.attempt - 1, now_s, actions)
        if self.kv.blocks_for(event.num_tokens + 1) > self.kv.num_blocks:
            cause = f"{event.num_tokens} tokens do not fit the {self.kv.num_blocks} KV blocks of machine {self.index}"
            actions.append(Send(SCHEDULER, RequestRejected(event.request_id, event.attempt, cause)))
            return None
        return Sequence(event.request_id, event.attempt, event.arrival_s, event.num_tokens, event.num_generated)

    @staticmethod
    def _current(place: dict[int, Sequence], event: tuple, actions: list[tuple]) -> Sequence | None:
        seq = place.get(event.request_id)
        if seq is None or seq.attempt != event.attempt:
            actions.append(DropStale(event.request_id, event.attempt, type(event).__name__))
            return None
        return seq

    def _is_called_off(self, seq: Sequence | None) -> bool:
        return seq is not None and self._called_off.get(seq.request_id, 0) >= seq.attempt
