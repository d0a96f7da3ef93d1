"""A machine of the published simulator (SPLITWISE.md §9): its memory, its batches, and what cuts a block of decode steps.

A prompt passes `batcher.prompts` -> `prefilling` -> `holding`, until the decode machine has its KV cache. A handed-over
request passes `inbound` (no memory yet: asked again every `retry_s`) -> `pulling` -> `decodes`. Where both phases run here,
the decode waits in `decodes` from the arrival on.

A block of decode steps lasts until a decode ends or an arrival cuts it, and only then is a batch selected. So a run that
ends with neither, because an executor gives no more steps at a time, goes on as it is.
"""

from emu.core.messages import (
    NETWORK,
    SCHEDULER,
    Assigned,
    Batch,
    Cancelled,
    CutRun,
    DecodeJoin,
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
    QueueChanged,
    RecordTransfer,
    RequestFinished,
    RunSteps,
    Send,
    SetTimer,
    StepsDone,
    StepsPassed,
)
from emu.core.oracle import OutputOracle
from emu.core.splitwise_sim.batcher import Batcher, BatchLimits
from emu.core.splitwise_sim.memory import Memory
from emu.core.splitwise_sim.task import Task

NO_LIMIT = 2**31 - 1  # of steps: a block lasts until a decode ends, which only the executor sees


class SplitwiseSimMachine:
    """State machine of machine `index`, with memory for `num_bytes` of KV cache.

    It asks the `oracle` for one thing: the KV cache that a decode will have grown to at its end, which it takes at its start.
    With `reports_queue` it tells the scheduler when its queue becomes empty, and when it does not as the scheduler can know.
    """

    def __init__(
        self,
        index: int,
        num_bytes: int,
        limits: BatchLimits,
        retry_s: float,
        kv_bytes_per_token: int,
        oracle: OutputOracle,
        reports_queue: bool,
    ) -> None:
        self.index = index
        self.memory = Memory(num_bytes)
        self.batcher = Batcher(limits, self.memory)
        self.limits = limits
        self.retry_s = retry_s
        self.kv_bytes_per_token = kv_bytes_per_token
        self.oracle = oracle
        self.holding: dict[int, Task] = {}
        self.inbound: dict[int, Task] = {}
        self.pulling: dict[int, Task] = {}
        self.decodes: dict[int, Task] = {}
        self.is_running = False
        self.context_tokens = 0  # of the active decodes at their next step
        self._reports_queue = reports_queue
        self._queue_known = False  # whether something waits, as the scheduler believes
        self._present: set[int] = set()  # requests with a task that waits or runs
        self._num_arrived = 0
        self._step = 0
        self._cut = False
        self._leaves: list[int] = []
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
        if self._reports_queue and self._queue_known != bool(self.batcher.pending):
            self._queue_known = not self._queue_known
            actions.append(Send(SCHEDULER, QueueChanged(self.index, self._queue_known)))
        return actions

    def would_pull(self, event: KVReady) -> bool:
        """Whether this hand-over, if it were offered now, would get its memory at once."""
        is_current = self._called_off.get(event.request_id, 0) < event.attempt
        return is_current and (event.num_tokens + 1) * self.kv_bytes_per_token <= self.memory.num_free

    # --- arrivals -----------------------------------------------------------------------------------------------------

    def _on_assigned(self, event: Assigned, now_s: float, actions: list[tuple]) -> None:
        if self._is_stale(event, actions):
            return
        key, num_tokens = (event.request_id, event.attempt), event.num_tokens
        prompt = Task(*key, event.arrival_s, num_tokens, num_tokens, event.num_generated)
        prompt.kv_bytes = (num_tokens + 1) * self.kv_bytes_per_token
        prompt.decode_on = event.decode_on
        self._admit(prompt)
        self.batcher.add_prompt(prompt)
        self._arrived(prompt, now_s, actions)
        if event.decode_on == self.index:
            decode = self._new_decode(event)
            decode.order = prompt.order
            self.decodes[event.request_id] = decode
            self.batcher.add_decode(decode, prompt_is_here=True)
            self._queue_known = True
            self._arrived(decode, now_s, actions)

    def _new_decode(self, event: Assigned | KVReady) -> Task:
        decode = Task(event.request_id, event.attempt, event.arrival_s, 0, event.num_tokens, event.num_generated)
        num_to_come = self.oracle.output_tokens(event.request_id) - 1
        decode.kv_bytes = num_to_come * self.kv_bytes_per_token
        return decode

    def _admit(self, task: Task) -> None:
        """Count a request in. Where others are here already the scheduler knows that its task waits."""
        task.order = self._num_arrived
        self._num_arrived += 1
        self._queue_known |= bool(self._present)
        self._present.add(task.request_id)

    def _arrived(self, task: Task, now_s: float, actions: list[tuple]) -> None:
        """Start if idle, unless memory is short of this very task; else cut a block of decodes that could take it."""
        if not self.is_running:
            if task.kv_bytes <= self.memory.num_free:
                self._start(now_s, actions)
            return
        num_seqs, num_tokens = self.batcher.num_running, self.batcher.batch_tokens
        joins = num_seqs < self.limits.max_num_seqs and num_tokens + task.num_tokens <= self.limits.max_batch_tokens
        if joins or 0 < task.prompt_tokens <= self.limits.max_batch_tokens:
            self._cut_block(actions)

    def _cut_block(self, actions: list[tuple]) -> None:
        if not self.batcher.prefilling and not self._cut:
            self._cut = True
            actions.append(CutRun())

    # --- hand-overs ---------------------------------------------------------------------------------------------------

    def _on_kv_ready(self, event: KVReady, now_s: float, actions: list[tuple]) -> None:
        task = self.inbound.get(event.request_id)
        if task is None or task.attempt != event.attempt:
            if self._is_stale(event, actions):
                return
            task = self.inbound[event.request_id] = self._new_decode(event)
            task.source, task.ready_s = event.source, now_s
        num_bytes = (event.num_tokens + 1) * self.kv_bytes_per_token
        if num_bytes > self.memory.num_free:
            actions.append(SetTimer(now_s + self.retry_s, event))
            return
        del self.inbound[event.request_id]
        self.memory.reserve(num_bytes)
        task.held_bytes = num_bytes
        task.pull_s = now_s
        self.pulling[event.request_id] = task
        key, num_bytes = (event.request_id, event.attempt), event.num_tokens * self.kv_bytes_per_token
        actions.append(Send(NETWORK, FlowRequested(*key, event.source, self.index, num_bytes, now_s, now_s, 1)))
        actions.append(Pull(*key, event.source, event.num_tokens))

    def _on_kv_received(self, event: KVReceived, now_s: float, actions: list[tuple]) -> None:
        task = self._current(self.pulling, event, actions)
        if task is None:
            return
        request_id, attempt = event
        self.decodes[request_id] = self.pulling.pop(request_id)
        actions.append(Send(task.source, KVPulled(request_id, attempt)))
        actions.append(Send(SCHEDULER, KVTransferred(request_id, attempt)))
        transfer = (task.source, self.index, task.num_cached, task.ready_s, task.pull_s)
        actions.append(RecordTransfer(request_id, attempt, *transfer))
        self._admit(task)
        self.batcher.add_decode(task, prompt_is_here=False)
        self._arrived(task, now_s, actions)

    def _on_kv_pulled(self, event: KVPulled, now_s: float, actions: list[tuple]) -> None:
        task = self._current(self.holding, event, actions)
        if task is None:
            return
        self._release_held(task, actions)
        pending = self.batcher.pending
        if not pending:
            return
        if not self.is_running:
            if pending[0].kv_bytes <= self.memory.num_free:
                self._start(now_s, actions)
        elif self.batcher.num_running < self.limits.max_num_seqs and self.batcher.batch_tokens < self.limits.max_batch_tokens:
            self._cut_block(actions)

    def _release_held(self, task: Task, actions: list[tuple]) -> None:
        del self.holding[task.request_id]
        self.memory.release(task.held_bytes)
        actions.append(FreeKV(task.request_id, task.attempt))

    # --- steps --------------------------------------------------------------------------------------------------------

    def _start(self, now_s: float, actions: list[tuple]) -> None:
        """Select a batch and run it: one step where it has prompts, else a block of decode steps."""
        joining, left_out = self.batcher.select()
        for task in left_out:
            self._leave_batch(task)
            self._leaves.append(task.request_id)
        prefills, joins = [], []
        for task in joining:
            if task.prompt_tokens:
                prefills.append(Prefill(task.request_id, task.attempt, task.prompt_tokens, task.num_generated))
            else:
                task.joined_at = self._step
                self.context_tokens += task.num_cached + 1
                joins.append(DecodeJoin(task.request_id, task.attempt, task.num_cached, task.num_generated))
        num_decodes = len(self.batcher.active)
        self._cut = False
        self._step_start_s = now_s
        self.is_running = bool(prefills) or num_decodes > 0
        if self.is_running:
            leaves, self._leaves = tuple(self._leaves), []
            num_paused = len(self.batcher.paused)
            self._batch = Batch(tuple(prefills), tuple(joins), leaves, num_decodes, self.context_tokens, num_paused)
            actions.append(RunSteps(self._batch, 1 if prefills else NO_LIMIT))

    def _on_steps_passed(self, event: StepsPassed, now_s: float, actions: list[tuple]) -> None:
        self._pass_steps(event.boundaries_s, (), actions)

    def _on_steps_done(self, event: StepsDone, now_s: float, actions: list[tuple]) -> None:
        batcher = self.batcher
        self._pass_steps(event.boundaries_s, event.finished, actions)
        if not (event.finished or batcher.prefilling or self._cut):
            num_decodes = len(batcher.active)
            self._batch = Batch((), (), (), num_decodes, self.context_tokens, len(batcher.paused))
            actions.append(RunSteps(self._batch, NO_LIMIT))
            return
        for request_id in event.finished:
            task = batcher.active.get(request_id)
            if task is not None:
                self._end_decode(task)
                if not self._is_called_off(task):
                    actions.append(Send(SCHEDULER, RequestFinished(request_id, task.attempt)))
        prefilled, batcher.prefilling = batcher.prefilling, []
        for task in prefilled:
            self._end_prefill(task, task.request_id in event.finished, actions)
        if self._called_off:
            for task in [task for task in batcher.active.values() if self._is_called_off(task)]:
                self._end_decode(task)
                self._leaves.append(task.request_id)
        self._start(now_s, actions)

    def _pass_steps(self, boundaries_s: tuple[float, ...], finished: tuple[int, ...], actions: list[tuple]) -> None:
        self._step += len(boundaries_s)
        self.context_tokens += len(boundaries_s) * len(self.batcher.active)
        actions.append(Emit(self.index, self._step_start_s, boundaries_s, self._batch, finished))
        self._step_start_s = boundaries_s[-1]
        self._batch = None

    def _leave_batch(self, task: Task) -> None:
        num_steps = self._step - task.joined_at
        task.num_cached += num_steps
        task.num_generated += num_steps
        self.context_tokens -= task.num_cached + 1

    def _end_decode(self, task: Task) -> None:
        """Take an active decode out of the batch, and its request out of the machine."""
        self._leave_batch(task)
        del self.batcher.active[task.request_id]
        del self.decodes[task.request_id]
        self.memory.release(task.held_bytes)
        self._present.discard(task.request_id)

    def _end_prefill(self, task: Task, is_finished: bool, actions: list[tuple]) -> None:
        key = (task.request_id, task.attempt)
        decode = self.decodes.get(task.request_id)
        is_called_off = self._is_called_off(task)
        if is_finished or is_called_off:
            self._present.discard(task.request_id)
            self.memory.release(task.held_bytes)
            if decode is not None and not is_called_off:
                self.batcher.discard(decode)
                del self.decodes[task.request_id]
            if not is_called_off:
                actions.append(Send(SCHEDULER, RequestFinished(*key)))
            return
        actions.append(Send(SCHEDULER, PrefillDone(*key)))
        if decode is not None:
            decode.held_bytes = task.held_bytes
            decode.num_generated += 1
            self.batcher.give_turn(decode)
            return
        self._present.discard(task.request_id)
        self.holding[task.request_id] = task
        num_tokens = task.prompt_tokens
        actions.append(HoldKV(*key, num_tokens))
        ready = KVReady(*key, task.arrival_s, num_tokens, task.num_generated + 1, self.index, 0.0, 0.0)
        actions.append(Send(task.decode_on, ready))

    # --- requests called off ------------------------------------------------------------------------------------------

    def _on_cancelled(self, event: Cancelled, now_s: float, actions: list[tuple]) -> None:
        self._call_off(event.request_id, event.attempt, actions)
        if not self.is_running and self.batcher.pending:
            self._start(now_s, actions)

    def _call_off(self, request_id: int, attempt: int, actions: list[tuple]) -> None:
        """Forget the attempts of a request up to this one, wherever they are here."""
        if self._called_off.get(request_id, 0) >= attempt:
            return
        self._called_off[request_id] = attempt
        batcher = self.batcher
        for prompt in [task for task in batcher.prompts if self._is_called_off(task)]:
            batcher.discard(prompt)
            self._present.discard(request_id)
        if self._is_called_off(self.inbound.get(request_id)):
            del self.inbound[request_id]
        if self._is_called_off(self.holding.get(request_id)):
            self._release_held(self.holding[request_id], actions)
        if self._is_called_off(self.pulling.get(request_id)):
            self.memory.release(self.pulling.pop(request_id).held_bytes)
        decode = self.decodes.get(request_id)
        if self._is_called_off(decode):
            if decode.in_batch:
                self._cut_block(actions)  # what is in the step in flight goes at its boundary
            else:
                batcher.discard(decode)
                del self.decodes[request_id]
                self.memory.release(decode.held_bytes)
                self._present.discard(request_id)

    def _is_stale(self, event: Assigned | KVReady, actions: list[tuple]) -> bool:
        """Whether the attempt was called off. A new one calls off those before it."""
        if self._called_off.get(event.request_id, 0) >= event.attempt:
            actions.append(DropStale(event.request_id, event.attempt, type(event).__name__))
            return True
        self._call_off(event.request_id, event.attempt - 1, actions)
        return False

    @staticmethod
    def _current(place: dict[int, Task], event: tuple, actions: list[tuple]) -> Task | None:
        task = place.get(event.request_id)
        if task is None or task.attempt != event.attempt:
            actions.append(DropStale(event.request_id, event.attempt, type(event).__name__))
            return None
        return task

    def _is_called_off(self, task: Task | None) -> bool:
        return task is not None and self._called_off.get(task.request_id, 0) >= task.attempt
