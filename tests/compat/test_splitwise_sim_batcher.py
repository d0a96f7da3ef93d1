"""What goes into the next batch, rule by rule (SPLITWISE.md §9)."""

import pytest

from emu.compat.splitwise_sim.batcher import Batcher, BatchLimits
from emu.compat.splitwise_sim.machines import SplitwiseSimMachines
from emu.compat.splitwise_sim.memory import Memory
from emu.compat.splitwise_sim.task import Task
from emu.core.setting import SettingError


class Queue:
    """A batcher with at most 4 sequences and 10 tokens a batch, where what was skipped twice comes first; 1 B a token."""

    def __init__(self, num_bytes=1000, **limits):
        limits = BatchLimits(**{"max_num_seqs": 4, "max_batch_tokens": 10, "max_num_skips": 2} | limits)
        self.batcher = Batcher(limits, Memory(num_bytes))
        self.num_tasks = 0

    def _task(self, name, prompt_tokens, kv_bytes, arrival_s):
        task = Task(name, 1, self.num_tasks if arrival_s is None else arrival_s, prompt_tokens, 0, 0)
        task.order, task.kv_bytes = self.num_tasks, kv_bytes
        self.num_tasks += 1
        return task

    def prompt(self, name, num_tokens, arrival_s=None):
        self.batcher.add_prompt(self._task(name, num_tokens, num_tokens, arrival_s))

    def decode(self, name, kv_bytes=1, arrival_s=None):
        self.batcher.add_decode(self._task(name, 0, kv_bytes, arrival_s), prompt_is_here=False)

    def next(self):
        """The next batch, prompts first; those of the last one are over."""
        self.end_prefills()
        batcher = self.batcher
        batcher.select()
        return [task.request_id for task in batcher.prefilling], list(batcher.active.tasks)

    def end_prefills(self):
        for task in self.batcher.prefilling:
            self.batcher.memory.release(task.held_bytes)
        self.batcher.prefilling = []

    def end(self, name):
        task = self.batcher.active.tasks[name]
        self.batcher.active.leave(task)
        self.batcher.memory.release(task.held_bytes)

    def skips(self):
        return {task.request_id: self.batcher.num_skips(task) for task in self.batcher.pending}


def test_prompts_come_first_in_order_up_to_the_limit_of_tokens():
    queue = Queue()
    queue.decode("d", arrival_s=0)
    queue.prompt("a", 6)
    queue.prompt("b", 3)
    queue.prompt("c", 5)
    assert queue.next() == (["a", "b"], ["d"])
    assert queue.next() == (["c"], ["d"])


def test_a_prompt_beyond_the_limit_runs_alone_and_pauses_the_decodes():
    queue = Queue()
    queue.decode("d")
    assert queue.next() == ([], ["d"])
    queue.prompt("long", 11)
    queue.prompt("short", 1)
    assert queue.next() == (["long"], [])
    assert list(queue.batcher.paused) == ["d"]
    assert queue.batcher.memory.num_used == 11 + 1  # paused, it keeps its memory
    assert queue.next() == (["short"], ["d"])


def test_only_the_first_prompt_may_be_beyond_the_limit():
    queue = Queue()
    queue.prompt("short", 1)
    queue.prompt("long", 11)
    assert queue.next() == (["short"], [])
    assert queue.next() == (["long"], [])


def test_at_most_so_many_sequences():
    queue = Queue()
    for name in "abcde":
        queue.decode(name)
    assert queue.next() == ([], ["a", "b", "c", "d"])
    queue.prompt("p", 1)
    assert queue.next() == (["p"], ["a", "b", "c"])  # the youngest member is left out


def test_paused_decodes_come_before_members_and_members_before_new_ones():
    queue = Queue(max_num_skips=99)
    for name in "abcd":
        queue.decode(name)
    assert queue.next()[1] == ["a", "b", "c", "d"]
    queue.prompt("p", 9)
    queue.decode("new")
    assert queue.next() == (["p"], ["a"])
    # b, c and d come back behind a, which stays; there is no place for the new one.
    assert queue.next() == ([], ["a", "b", "c", "d"])
    queue.end("a")
    assert queue.next() == ([], ["b", "c", "d", "new"])


def test_the_first_prompt_that_memory_does_not_hold_stops_all_that_came_after_it():
    queue = Queue(num_bytes=7)
    queue.decode("before")
    queue.prompt("large", 8)
    queue.prompt("small", 1)
    queue.decode("after")
    assert queue.next() == ([], ["before"])


def test_new_decodes_are_taken_in_order_of_their_requests_arrival():
    queue = Queue(num_bytes=5)
    queue.decode("late", kv_bytes=2, arrival_s=9.0)
    queue.decode("early", kv_bytes=3, arrival_s=1.0)
    queue.decode("between", kv_bytes=3, arrival_s=5.0)
    # The one between does not fit, and the late one, which would, waits behind it.
    assert queue.next() == ([], ["early"])


def test_what_waits_is_counted_as_skipped_at_every_start():
    queue = Queue(num_bytes=10)
    queue.decode("a", kv_bytes=10)
    queue.next()
    queue.decode("b", kv_bytes=5)
    queue.next()
    queue.prompt("p", 5)
    queue.next()
    assert queue.skips() == {"b": 2, "p": 1}


def test_what_was_skipped_often_enough_comes_before_prompts():
    queue = Queue()
    queue.prompt("a", 11)
    queue.decode("d", arrival_s=9)
    queue.prompt("b", 11, arrival_s=1)
    queue.prompt("c", 11, arrival_s=2)
    assert [queue.next()[0] for _ in range(2)] == [["a"], ["b"]]
    # d has been skipped twice by now, and so has c, which came before it.
    assert queue.skips() == {"c": 2, "d": 2}
    assert queue.next() == (["c"], [])
    assert queue.next() == ([], ["d"])


def test_a_newcomer_at_the_head_shields_the_prompts_from_what_was_skipped():
    queue = Queue()
    queue.prompt("a", 11)
    queue.decode("d")
    for name, arrival_s in (("b", 2), ("c", 3), ("e", 4)):
        queue.next()
        queue.prompt(name, 11, arrival_s)
    # Two skips or more, but the scan from the head stops at the newcomer, which has none.
    assert queue.skips() == {"e": 0, "d": 3}
    assert queue.next() == (["e"], [])


def test_a_skipped_task_without_memory_does_not_stop_the_others():
    queue = Queue(num_bytes=10)
    queue.decode("holder", kv_bytes=6)
    queue.next()
    queue.decode("large", kv_bytes=8, arrival_s=1)
    queue.decode("small", kv_bytes=4, arrival_s=2)
    queue.next()
    queue.next()
    assert queue.skips() == {"large": 2, "small": 2}
    assert queue.next() == ([], ["holder", "small"])


def test_a_paused_decode_needs_no_memory_to_go_on():
    queue = Queue(num_bytes=20)
    queue.decode("d", kv_bytes=9)
    queue.next()
    queue.prompt("p", 11)
    queue.prompt("q", 11)
    assert queue.next() == (["p"], [])
    assert queue.next() == (["q"], [])
    assert queue.skips() == {"d": 2}
    queue.end_prefills()
    queue.batcher.memory.reserve(8)  # for something else: less than the decode has is free
    assert queue.next() == ([], ["d"])
    assert queue.batcher.memory.num_free == 3


def test_a_colocated_decode_waits_for_its_prompt_and_is_not_counted():
    queue = Queue()
    batcher = queue.batcher
    queue.prompt("a", 11)
    decode = queue._task("a", 0, 5, 0)
    batcher.add_decode(decode, prompt_is_here=True)
    queue.prompt("b", 11)
    assert queue.next() == (["a"], [])
    assert queue.next() == (["b"], [])
    assert queue.skips() == {"a": 0}
    batcher.give_turn(decode)
    assert queue.next() == ([], ["a"])


def test_memory_is_counted():
    memory = Memory(10)
    memory.reserve(4)
    assert (memory.num_free, memory.num_used) == (6, 4)
    with pytest.raises(RuntimeError, match="7 B taken where 6 of 10 B are free"):
        memory.reserve(7)
    with pytest.raises(RuntimeError, match="given back twice"):
        memory.release(5)


def test_a_task_cannot_come_first_before_it_was_ever_left_out():
    with pytest.raises(SettingError, match="max_num_skips=0: expected a whole number from 1"):
        SplitwiseSimMachines({}, 1.0, 1.0, max_num_seqs=1, max_batch_tokens=1, max_num_skips=0)
