"""A machine of the published simulator (SPLITWISE.md §9): what starts a batch, and what cuts a block of decode steps.

A block lasts until a decode ends or an arrival cuts it, and only then is a batch selected. So a run that ends with neither,
because an executor gives only so many steps at a time, goes on as it is.
"""

from collections.abc import Callable
from typing import Any

from emu.compat.splitwise_sim.batcher import Batcher, BatchLimits
from emu.compat.splitwise_sim.handovers import Handovers
from emu.compat.splitwise_sim.memory import Memory
from emu.compat.splitwise_sim.presence import Presence
from emu.compat.splitwise_sim.task import Task
from emu.core.attempts import Attempts
from emu.core.batch import Batch, DecodeJoin, Prefill
from emu.core.message import Message
from emu.core.messages import (
    SCHEDULER,
    Assigned,
    Cancelled,
    CutRun,
    DropAttempt,
    KVLost,
    KVPulled,
    KVReady,
    KVReceived,
    KVTransferFailed,
    PrefillDone,
    RequestFinished,
    RunSteps,
    Send,
    SendOutput,
    StepsDone,
    StepsPassed,
)
from emu.core.oracle import OutputOracle

NO_LIMIT = 2**31 - 1  # of steps: a block lasts until a decode ends, which only the executor sees


class SplitwiseSimMachine:
    """State machine of machine `index`, with `num_bytes` of memory for KV caches.

    It asks the `oracle` for one thing: the tokens that a decode will write, whose memory it takes at its start. `decodes`
    are all that are here, running or not. With `reports_queue` it tells the scheduler what that cannot know of its queue.
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
        self.handovers = Handovers(index, self.memory, kv_bytes_per_token, retry_s)
        self.decodes: dict[int, Task] = {}
        self.is_running = False
        self._kv_bytes_per_token = kv_bytes_per_token
        self._oracle = oracle
        self._presence = Presence(index, reports_queue)
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
        self._presence.report(bool(self.batcher.pending), actions)
        return actions

    @property
    def pulling(self) -> dict[int, Task]:
        return self.handovers.pulling

    def would_pull(self, event: KVReady) -> bool:
        """Whether this hand-over, if it were offered now, would get its memory at once."""
        return not self._attempts.is_stale(event, []) and self.handovers.has_room(event)

    # --- arrivals -----------------------------------------------------------------------------------------------------

    def _on_assigned(self, event: Assigned, now_s: float, actions: list[Message]) -> None:
        if self._is_stale(event, actions):
            return
        request_id, attempt, arrival_s, num_tokens, num_generated, decode_on, _ = event
        prompt = Task(request_id, attempt, arrival_s, num_tokens, num_tokens, num_generated)
        prompt.kv_bytes = (num_tokens + 1) * self._kv_bytes_per_token
        prompt.decode_on = decode_on
        self._presence.arrive(prompt)
        self.batcher.add_prompt(prompt)
        self._arrived(prompt, now_s, actions)
        if decode_on == self.index:
            decode = self.decodes[request_id] = self._new_decode(event, num_generated + 1)
            self._presence.arrive_beside(prompt, decode)
            self.batcher.add_decode(decode, prompt_is_here=True)
            self._arrived(decode, now_s, actions)

    def _on_kv_ready(self, event: KVReady, now_s: float, actions: list[Message]) -> None:
        if not self.handovers.is_retry(event):
            if self._is_stale(event, actions):
                return
            self.handovers.expect(self._new_decode(event, event.num_generated), event, now_s)
        self.handovers.try_pull(event, now_s, actions)

    def _on_kv_received(self, event: KVReceived, now_s: float, actions: list[Message]) -> None:
        task = self._attempts.current(self.handovers.pulling, event, actions)
        if task is not None:
            self.handovers.received(task, actions)
            self.decodes[task.request_id] = task
            self._presence.arrive(task)
            self.batcher.add_decode(task, prompt_is_here=False)
            self._arrived(task, now_s, actions)

    def _on_kv_lost(self, event: KVLost, now_s: float, actions: list[Message]) -> None:
        request_id, attempt, cause = event
        if self._attempts.current(self.handovers.pulling, event, actions) is not None:
            actions.append(Send(SCHEDULER, KVTransferFailed(request_id, attempt, cause)))
            self._on_cancelled(Cancelled(request_id, attempt), now_s, actions)

    def _new_decode(self, event: Assigned | KVReady, num_generated: int) -> Task:
        """It starts with `num_generated` tokens out, and memory for all others."""
        decode = Task(event.request_id, event.attempt, event.arrival_s, 0, event.num_tokens, event.num_generated)
        decode.kv_bytes = (self._oracle.output_tokens(event.request_id) - num_generated) * self._kv_bytes_per_token
        return decode

    def _arrived(self, task: Task, now_s: float, actions: list[Message]) -> None:
        """Start if idle, unless memory is short of this very task; else cut a block of decodes that could take it."""
        if not self.is_running:
            if task.kv_bytes <= self.memory.num_free:
                self._start(now_s, actions)
        elif self.batcher.has_room(task.num_tokens) or 0 < task.prompt_tokens <= self.batcher.limits.max_batch_tokens:
            self._cut_block(actions)

    def _on_kv_pulled(self, event: KVPulled, now_s: float, actions: list[Message]) -> None:
        """The memory of a prompt came free: the first task that waits may go ahead."""
        task = self._attempts.current(self.handovers.holding, event, actions)
        if task is None:
            return
        self.handovers.release(task, actions)
        pending = self.batcher.pending
        if pending and self.is_running:
            if self.batcher.has_room(1):
                self._cut_block(actions)
        elif pending and pending[0].kv_bytes <= self.memory.num_free:
            self._start(now_s, actions)

    # --- steps --------------------------------------------------------------------------------------------------------

    def _start(self, now_s: float, actions: list[Message]) -> None:
        """Select a batch and run it: one step where it has prompts, else a block of decode steps."""
        prefills, joins = [], []
        for task in self.batcher.select():
            if task.prompt_tokens:
                prefills.append(Prefill(task.request_id, task.attempt, task.prompt_tokens, task.num_generated))
            else:
                joins.append(DecodeJoin(task.request_id, task.attempt, task.num_cached, task.num_generated))
        self._cut = False
        self.is_running = bool(self.batcher.num_running)
        if self.is_running:
            self._run(tuple(prefills), tuple(joins), actions)

    def _run(self, prefills: tuple[Prefill, ...], joins: tuple[DecodeJoin, ...], actions: list[Message]) -> None:
        active = self.batcher.active
        leaves, active.leaves = tuple(active.leaves), []
        num_paused = len(self.batcher.paused)
        batch = Batch(prefills, joins, leaves, len(active.tasks), active.context_tokens, num_paused)
        actions.append(RunSteps(batch, 1 if prefills else NO_LIMIT))

    def _cut_block(self, actions: list[Message]) -> None:
        if not self.batcher.prefilling and not self._cut:
            self._cut = True
            actions.append(CutRun())

    def _on_steps_passed(self, event: StepsPassed, now_s: float, actions: list[Message]) -> None:
        self.batcher.active.advance(event.num_steps)

    def _on_steps_done(self, event: StepsDone, now_s: float, actions: list[Message]) -> None:
        batcher = self.batcher
        num_steps, finished = event
        batcher.active.advance(num_steps)
        if not (finished or self._cut or batcher.prefilling):
            self._run((), (), actions)
            return
        for request_id in finished:
            task = batcher.active.tasks.get(request_id)
            if task is not None:
                batcher.active.leave(task)
                self._forget(task)
                if not self._attempts.is_over(task):
                    actions.append(Send(SCHEDULER, RequestFinished(request_id, task.attempt)))
        prefilled, batcher.prefilling = batcher.prefilling, []
        for task in prefilled:
            self._end_prefill(task, task.request_id in finished, actions)
        if self._attempts:
            for task in [task for task in batcher.active.tasks.values() if self._attempts.is_over(task)]:
                batcher.active.drop(task)
                self._forget(task)
        self._start(now_s, actions)

    def _end_prefill(self, task: Task, is_finished: bool, actions: list[Message]) -> None:
        decode = self.decodes.get(task.request_id)
        if self._attempts.is_over(task):
            self._forget(task)
        elif is_finished:
            if decode is not None:
                self.batcher.discard(decode)
            self._forget(task)
            actions.append(Send(SCHEDULER, RequestFinished(task.request_id, task.attempt)))
        else:
            actions.append(SendOutput(SCHEDULER, PrefillDone(task.request_id, task.attempt)))
            if decode is not None:
                decode.held_bytes = task.held_bytes
                decode.num_generated += 1
                self.batcher.give_turn(decode)
            else:
                self._presence.leave(task)
                self.handovers.hold(task, actions)

    def _forget(self, task: Task) -> None:
        """This attempt has nothing here any more but the memory that `task` holds."""
        decode = self.decodes.get(task.request_id)
        if decode is not None and decode.attempt == task.attempt:
            del self.decodes[task.request_id]
        self._presence.leave(task)
        self.memory.release(task.held_bytes)

    # --- requests called off ------------------------------------------------------------------------------------------

    def _on_cancelled(self, event: Cancelled, now_s: float, actions: list[Message]) -> None:
        self._call_off(event.request_id, event.attempt, actions)
        if not self.is_running and self.batcher.pending:
            self._start(now_s, actions)

    def _call_off(self, request_id: int, attempt: int, actions: list[Message]) -> None:
        """Forget the attempts of a request up to this one, wherever they are here."""
        if not self._attempts.call_off(request_id, attempt):
            return
        actions.append(DropAttempt(request_id, attempt))
        self.handovers.call_off(request_id, self._attempts, actions)
        for task in [task for task in self.batcher.pending if self._attempts.is_over(task)]:
            self.batcher.discard(task)
            self._forget(task)
        if request_id in self.decodes:
            self._cut_block(actions)  # what is in the step in flight goes at its boundary

    def _is_stale(self, event: Assigned | KVReady, actions: list[Message]) -> bool:
        """Whether the attempt was called off. A new one calls off those before it."""
        if self._attempts.is_stale(event, actions):
            return True
        self._call_off(event.request_id, event.attempt - 1, actions)
        return False
