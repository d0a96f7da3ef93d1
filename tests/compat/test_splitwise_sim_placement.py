"""Which machines the published simulator chooses, and who joins the mixed pool (SPLITWISE.md §9)."""

import pytest

from emu.compat.splitwise_sim.load import SplitwiseSimLoad
from emu.compat.splitwise_sim.placement import SplitwiseSim
from emu.compat.splitwise_sim.scheduler import SplitwiseSimScheduler
from emu.core.facts import PoolChanged, RequestPlaced
from emu.core.messages import Assigned, KVTransferred, MachineDied, PrefillDone, QueueChanged, RequestFinished, RunEnded, Send
from emu.core.oracle import OutputOracle
from emu.core.pools import Role
from emu.core.request import Request

ROLES = {"p": Role.PREFILL, "d": Role.DECODE, "m": Role.MIXED}
OUTPUT_TOKENS = 5


class Cluster:
    """A scheduler that takes queues of at most 100 tokens, with machines for `num_tokens` tokens of KV cache at 10 B."""

    def __init__(self, roles, num_tokens=1000, report_period_s=0.0):
        oracle = OutputOracle([OUTPUT_TOKENS] * 100)
        loads = [
            SplitwiseSimLoad(index, ROLES[role], num_tokens, 10 * num_tokens, 10, oracle) for index, role in enumerate(roles)
        ]
        self.scheduler = SplitwiseSimScheduler(loads, SplitwiseSim(max_pending_tokens=100), report_period_s=report_period_s)
        self.loads = loads
        self.num_requests = 0

    def place(self, num_tokens):
        """Where a request of so many prompt tokens goes: (prefill machine, decode machine)."""
        request = Request(self.num_requests, 0.0, num_tokens)
        self.scheduler.requests[request.request_id] = request
        self.num_requests += 1
        self.actions = []
        self.scheduler._place(request, 0.0, self.actions)
        [place] = [action for action in self.actions if type(action) is RequestPlaced]
        assert Send in {type(action) for action in self.actions}
        return place.prefill_on, place.decode_on

    def tell(self, event):
        return [action for action in self.scheduler.handle(event, 1.0) if type(action) is PoolChanged]

    def moves(self):
        return [tuple(action) for action in self.actions if type(action) is PoolChanged]


def test_the_prompt_goes_to_the_shortest_queue_and_the_decode_where_least_is_scheduled():
    cluster = Cluster("ppdd")
    assert cluster.place(30) == (0, 2)
    assert cluster.place(10) == (1, 3)
    assert cluster.place(10) == (1, 3)  # 10 + 10 pending against 30; 150 B against 350 B
    assert cluster.place(50) == (1, 3)  # 300 B against 350 B
    assert cluster.place(1) == (0, 2)  # 30 against 70; 350 B against 850 B
    tasks = [action.message for action in cluster.actions if type(action) is Send]
    assert tasks == [Assigned(4, 1, 0.0, 1, 0, 2)]


def test_pending_tokens_are_prompts_to_do_and_one_a_decode():
    cluster = Cluster("pd")
    cluster.place(30)
    assert [load.pending_tokens for load in cluster.loads] == [30, 1]
    cluster.tell(PrefillDone(0, 1))
    assert [load.pending_tokens for load in cluster.loads] == [0, 1]
    cluster.tell(KVTransferred(0, 1))
    cluster.tell(RequestFinished(0, 1))
    assert [load.pending_tokens for load in cluster.loads] == [0, 0]


def test_scheduled_memory_is_freed_at_the_source_by_the_hand_over_and_at_the_destination_by_the_end():
    cluster = Cluster("pd")
    cluster.place(30)
    assert [load.scheduled_bytes for load in cluster.loads] == [310, 350]
    cluster.tell(PrefillDone(0, 1))
    assert [load.scheduled_bytes for load in cluster.loads] == [310, 350]
    cluster.tell(KVTransferred(0, 1))
    assert [load.scheduled_bytes for load in cluster.loads] == [0, 350]
    cluster.tell(RequestFinished(0, 1))
    assert [load.scheduled_bytes for load in cluster.loads] == [0, 0]


def test_whatever_a_request_held_is_off_the_loads_when_it_is_given_up():
    cluster = Cluster("pd")
    for _ in range(3):
        cluster.place(30)
    cluster.tell(PrefillDone(0, 1))
    cluster.tell(PrefillDone(1, 1))
    cluster.tell(KVTransferred(1, 1))
    cluster.tell(RunEnded("enough"))
    assert [(load.scheduled_bytes, load.num_present) for load in cluster.loads] == [(0, 0), (0, 0)]


def test_what_an_attempt_held_is_told_late_and_off_the_loads_all_the_same():
    cluster = Cluster("ppd", report_period_s=5.0)
    assert cluster.place(10) == (0, 2)
    cluster.tell(MachineDied(0, "killed"))
    [request] = cluster.scheduler.requests.values()
    assert (request.attempt, request.prefill_on, request.decode_on) == (2, 1, 2)  # to the same token machine again
    assert cluster.loads[2].scheduled_bytes == 2 * 150  # until that reports
    cluster.tell(RunEnded("over"))
    cluster.scheduler.handle(RunEnded("over"), 10.0)
    assert [load.scheduled_bytes for load in cluster.loads] == [0, 0, 0]


def test_a_long_queue_is_one_that_waits_and_would_be_beyond_the_limit():
    cluster = Cluster("pd")
    assert cluster.place(90) == (0, 1)
    assert not cluster.loads[0].has_queue  # it runs at once
    assert cluster.place(90) == (0, 1)  # nothing waits yet, so 180 tokens are no long queue
    assert cluster.loads[0].has_queue
    assert cluster.place(5) == (1, 1)
    assert cluster.moves() == [(1, "mixed")]
    cluster.tell(QueueChanged(0, False))
    assert cluster.place(5) == (0, 1)


def test_the_token_machine_with_the_fewest_pending_tokens_is_taken_for_a_prompt():
    cluster = Cluster("pddd")
    assert cluster.place(90) == (0, 1)
    assert cluster.place(90) == (0, 2)
    assert cluster.place(1) == (3, 3)
    assert cluster.moves() == [(3, "mixed")]


def test_a_sequence_must_leave_some_memory():
    cluster = Cluster("pdd", num_tokens=40)
    assert cluster.place(34) == (0, 1)  # 39 of 40 tokens
    assert cluster.place(34) == (0, 2)
    assert cluster.place(1) == (0, 0)  # 6 more are too many on both: the prompt machine is taken, and does both
    assert cluster.moves() == [(0, "mixed")]
    cluster = Cluster("pdd", num_tokens=40)
    assert cluster.place(35) == (0, 0)  # 40 of 40 tokens are too many


def test_the_prompt_machine_with_the_least_scheduled_memory_is_taken_for_a_decode():
    cluster = Cluster("ppd", num_tokens=100)
    assert cluster.place(60) == (0, 2)
    assert cluster.place(40) == (1, 1)  # 410 B would be on machine 1, 610 B on 0; before it was placed 0 B on 1
    assert cluster.moves() == [(1, "mixed")]


def test_the_mixed_pool_is_asked_before_another_machine_is_taken():
    cluster = Cluster("ppdd", num_tokens=100)
    for request_id in range(2):
        assert cluster.place(55) == (0, 2 + request_id)
        cluster.tell(PrefillDone(request_id, 1))
        cluster.tell(KVTransferred(request_id, 1))
    assert cluster.place(40) == (0, 0)  # 60 and 45 of 100 tokens are too many for either token machine
    assert cluster.moves() == [(0, "mixed")]
    assert cluster.place(40) == (1, 0)  # where 45 and 45 fit
    assert cluster.moves() == []


def test_where_nobody_is_left_the_least_loaded_machine_does_both_and_keeps_its_pool():
    cluster = Cluster("pd")
    cluster.place(90)
    cluster.place(90)
    assert cluster.place(50) == (1, 1)  # the token machine is taken into the mixed pool, and queues
    assert cluster.place(60) == (1, 1)
    assert cluster.loads[1].has_queue
    # Both queues are long and the token pool is empty: the machine with fewest pending tokens.
    assert cluster.place(70) == (1, 1)
    assert cluster.moves() == []
    cluster = Cluster("pd", num_tokens=20)
    assert cluster.place(30) == (0, 0)  # beyond any memory: the prompt machine is taken
    assert cluster.moves() == [(0, "mixed")]
    assert cluster.place(40) == (1, 1)  # no prompt pool is left to take from: the machine with the fewest pending tokens
    assert cluster.moves() == []
    assert str(cluster.loads[1].pool) == "token"


def test_a_machine_goes_home_when_all_that_came_to_it_is_done_and_to_the_end_of_the_line():
    cluster = Cluster("ppdd", num_tokens=100)
    cluster.place(60)
    cluster.place(60)
    cluster.place(40)  # on machine 0, taken into the mixed pool
    assert cluster.tell(PrefillDone(0, 1)) == []
    assert cluster.tell(PrefillDone(2, 1)) == []
    assert cluster.tell(RequestFinished(2, 1)) == [PoolChanged(0, "prompt")]
    cluster.tell(PrefillDone(1, 1))
    assert cluster.place(1) == (1, 2)  # both have no queue: 1 has been in the pool for longer


def test_a_decode_on_its_way_does_not_keep_a_machine_in_the_mixed_pool():
    cluster = Cluster("pd")
    cluster.place(90)
    cluster.place(90)
    assert cluster.place(5) == (1, 1)
    cluster.tell(PrefillDone(2, 1))
    assert cluster.tell(RequestFinished(2, 1)) == [PoolChanged(1, "token")]  # though it is to decode the other two


def test_a_colocated_cluster_takes_the_shortest_queue_of_all():
    cluster = Cluster("mmm", num_tokens=20)
    assert [cluster.place(num_tokens) for num_tokens in (30, 20, 10, 5, 5)] == [(0, 0), (1, 1), (2, 2), (2, 2), (2, 2)]
    assert cluster.moves() == []
    assert cluster.loads[2].pending_tokens == 23


def test_the_limit_is_a_whole_number():
    with pytest.raises(ValueError, match=r"placement\.max_pending_tokens=0: expected a whole number from 1"):
        SplitwiseSim(0)


def test_a_cluster_is_colocated_only_if_all_its_machines_are_mixed():
    assert Cluster("mpd").place(30) == (1, 2)
    assert Cluster("mm").place(30) == (0, 0)
