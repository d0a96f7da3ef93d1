"""Everything at a machine that may run, and the published rule for what of it does (SPLITWISE.md §9)."""

from bisect import insort
from dataclasses import dataclass
from heapq import merge
from operator import attrgetter

from emu.compat.splitwise_sim.active_decodes import ActiveDecodes
from emu.compat.splitwise_sim.memory import Memory
from emu.compat.splitwise_sim.task import Task

_rank = attrgetter("rank")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """At most `max_num_seqs` sequences and `max_batch_tokens` tokens (prompt tokens and one for each decode) a batch, but
    any prompt alone. A task left out `max_num_skips` times comes before everything else."""

    max_num_seqs: int
    max_batch_tokens: int
    max_num_skips: int


class Batcher:
    """The tasks of one machine.

    `pending` is all that waits, each task put in by (times skipped, arrival) as they were then: what waits goes on being
    skipped, so the list need not be sorted. Of these, `prompts` are in order of arrival, `paused` are decodes that were
    left out of a batch, in that order, and `fresh` are decodes that never ran and whose prompt is done, in order of the
    requests' arrival. `prefilling` and `active` are the batch.
    """

    def __init__(self, limits: BatchLimits, memory: Memory) -> None:
        self.limits = limits
        self.memory = memory
        self.pending: list[Task] = []
        self.prompts: list[Task] = []
        self.paused: dict[int, Task] = {}
        self.fresh: list[Task] = []
        self.prefilling: list[Task] = []
        self.active = ActiveDecodes()
        self.num_starts = 0
        self.batch_tokens = 0  # of the batch when it was selected

    @property
    def num_running(self) -> int:
        return len(self.prefilling) + len(self.active.tasks)

    def num_skips(self, task: Task) -> int:
        return task.num_skips if task.counted_from is None else task.num_skips + self.num_starts - task.counted_from

    def has_room(self, num_tokens: int) -> bool:
        """Whether the batch, as it was selected, could have taken so much more."""
        limits = self.limits
        return self.num_running < limits.max_num_seqs and self.batch_tokens + num_tokens <= limits.max_batch_tokens

    # --- what waits ---------------------------------------------------------------------------------------------------

    def add_prompt(self, task: Task) -> None:
        self.prompts.append(task)
        self._queue(task)

    def add_decode(self, task: Task, prompt_is_here: bool) -> None:
        """Queue a decode; where its prompt is still here, it has to be told when its turn has come."""
        self._queue(task)
        if prompt_is_here:
            task.counted_from = None
        else:
            insort(self.fresh, task, key=_rank)

    def give_turn(self, task: Task) -> None:
        """The prompt of this pending decode is done."""
        task.counted_from = self.num_starts
        insort(self.fresh, task, key=_rank)

    def discard(self, task: Task) -> None:
        """Forget a task that waits."""
        self.pending.remove(task)
        self._unlist(task)

    def _queue(self, task: Task) -> None:
        task.counted_from = self.num_starts
        insort(self.pending, task, key=lambda waiting: (self.num_skips(waiting), waiting.arrival_s))

    def _unlist(self, task: Task) -> None:
        if task.prompt_tokens:
            self.prompts.remove(task)
        elif task.is_paused:
            del self.paused[task.request_id]
            task.is_paused = False
        elif task in self.fresh:
            self.fresh.remove(task)

    # --- the next batch -----------------------------------------------------------------------------------------------

    def select(self) -> list[Task]:
        """Form the next batch from the decodes still active and from what waits, and take the memory of what starts.

        Returns who joins. Whatever waits and stays out has been skipped once more.
        """
        if not self.pending:  # who is in the batch stays
            self.batch_tokens = len(self.active.tasks)
            self.num_starts += 1
            return []
        chosen, num_kept, self.batch_tokens = self._choose()
        if num_kept < len(self.active.tasks):
            for task in list(self.active.tasks.values())[num_kept:]:
                self.active.drop(task)
                task.in_batch, task.is_paused = False, True
                self._queue(task)
                self.paused[task.request_id] = task
        for task in chosen:
            task.num_skips = self.num_skips(task)
            task.counted_from = None
            if not task.is_paused:
                self.memory.reserve(task.kv_bytes)
                task.held_bytes += task.kv_bytes
            self.discard(task)
            if task.prompt_tokens:
                self.prefilling.append(task)
            else:
                self.active.join(task)
        self.num_starts += 1
        return chosen

    def _choose(self) -> tuple[list[Task], int, int]:
        """Who joins, in order; how many of the active decodes stay, from the oldest; the tokens of them all."""
        max_num_seqs, max_tokens = self.limits.max_num_seqs, self.limits.max_batch_tokens
        chosen: list[Task] = []
        num_tokens, num_free = 0, self.memory.num_free

        def is_full(task: Task) -> bool:
            return len(chosen) == max_num_seqs or (bool(chosen) and num_tokens + task.num_tokens > max_tokens)

        for task in self.pending:
            if self.num_skips(task) < self.limits.max_num_skips or is_full(task):
                break
            kv_bytes = 0 if task.is_paused else task.kv_bytes
            if kv_bytes <= num_free:
                task.in_batch = True
                chosen.append(task)
                num_free -= kv_bytes
                num_tokens += task.num_tokens
        for task in self.prompts:
            if is_full(task):  # asked, as published, of a task already chosen too
                break
            if task.in_batch:
                continue
            if task.kv_bytes > num_free:
                break
            task.in_batch = True
            chosen.append(task)
            num_free -= task.kv_bytes
            num_tokens += task.num_tokens
        for task in self.paused.values():
            if is_full(task):
                break
            if not task.in_batch:
                task.in_batch = True
                chosen.append(task)
                num_tokens += 1
        num_kept = min(len(self.active.tasks), max_num_seqs - len(chosen), max_tokens - num_tokens)
        if num_kept < 0:  # a prompt beyond the limit, alone
            num_kept = 0
        num_tokens += num_kept
        both = self.fresh and self.prompts
        for task in merge(self.fresh, self.prompts, key=_rank) if both else self.fresh or self.prompts:
            if len(chosen) + num_kept == max_num_seqs:
                break
            if task.in_batch:
                continue
            is_beyond = (chosen or num_kept) and num_tokens + task.num_tokens > max_tokens
            if is_beyond or task.kv_bytes > num_free:
                break
            task.in_batch = True
            chosen.append(task)
            num_free -= task.kv_bytes
            num_tokens += task.num_tokens
        return chosen, num_kept, num_tokens
