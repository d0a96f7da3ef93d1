"""Policies through the scheduler: what happened in, where each request was placed and which machine changed pools out."""

import pytest

from emu.core.facts import PoolChanged, RequestPlaced
from emu.core.messages import KVTransferred, MachineDied, PrefillDone, RequestArrived, RequestFinished
from emu.core.placement.direct_decode import DirectDecode
from emu.core.placement.jsq import Jsq
from emu.core.placement.least_kv import LeastKV
from emu.core.placement.power_of_two import PowerOfTwo
from emu.core.placement.random import Random
from emu.core.placement.round_robin import RoundRobin
from emu.core.placement.splitwise import Splitwise
from emu.core.placement.token_jsq import TokenJsq
from emu.core.pools import MachineLoad, Role
from emu.core.scheduler import Scheduler

ROLES = {"p": Role.PREFILL, "d": Role.DECODE, "m": Role.MIXED}
CAPACITY_TOKENS = 1000


def told(policy, machines, story):
    """Run `story` on a cluster of `machines` and return moves ("d1 mixed") and placements ("p0>d1") in order.

    A number in the story is the arrival of a prompt of so many tokens, a pair one whose output is predicted; "prefilled 3",
    "transferred 3" and "finished 3" are about the fourth to arrive; "died p0".
    """
    names = machines.split()
    scheduler = Scheduler([MachineLoad(i, ROLES[name[0]], CAPACITY_TOKENS) for i, name in enumerate(names)], policy)
    lines, num_arrived = [], 0
    events = {"prefilled": PrefillDone, "transferred": KVTransferred, "finished": RequestFinished}
    for item in story:
        if isinstance(item, int):
            event = RequestArrived(num_arrived, 0.0, item, 0)
            num_arrived += 1
        elif isinstance(item, tuple):
            event = RequestArrived(num_arrived, 0.0, *item)
            num_arrived += 1
        else:
            verb, what = item.split()
            event = MachineDied(names.index(what), "") if verb == "died" else events[verb](int(what), 1)
        for action in scheduler.handle(event, 0.0):
            if isinstance(action, RequestPlaced):
                lines.append(f"{names[action.prefill_on]}>{names[action.decode_on]}")
            elif isinstance(action, PoolChanged):
                lines.append(f"{names[action.machine]} {action.pool}")
    return lines


def test_token_jsq_counts_tokens():
    assert told(TokenJsq(), "p0 p1 d0 d1", [100, 10, 10, 200]) == ["p0>d0", "p1>d1", "p1>d0", "p1>d1"]


def test_jsq_counts_requests():
    assert told(Jsq(), "p0 p1 d0 d1", [100, 10, 10, 200]) == ["p0>d0", "p1>d1", "p0>d0", "p1>d1"]


def test_jsq_counts_what_is_not_yet_done():
    story = [10, 10, "prefilled 1", 10, "transferred 1", "finished 1", 10]
    assert told(Jsq(), "p0 p1 d0 d1", story) == ["p0>d0", "p1>d1", "p1>d0", "p0>d1"]


@pytest.mark.parametrize(
    ("policy", "placed"),
    [
        (Jsq(), ["m0>m0", "m1>m1", "m0>m0"]),
        (TokenJsq(), ["m0>m0", "m1>m1", "m1>m1"]),
        (RoundRobin(), ["m0>m0", "m1>m1", "m0>m0"]),
    ],
)
def test_a_machine_for_both_phases_keeps_its_request(policy, placed):
    assert told(policy, "m0 m1", [100, 10, 10]) == placed


def test_round_robin_takes_each_pool_in_turn():
    assert told(RoundRobin(), "p0 p1 p2 d0 d1", [1, 1, 1, 1, 1]) == ["p0>d0", "p1>d1", "p2>d0", "p0>d1", "p1>d0"]


def test_round_robin_passes_over_the_dead():
    assert told(RoundRobin(), "p0 p1 p2 d0", [1, "died p1", 1, 1]) == ["p0>d0", "p1 dead", "p2>d0", "p0>d0"]


def test_random_draws_by_its_seed():
    machines, story = "p0 p1 p2 d0 d1", [1] * 60
    drawn = told(Random(seed=3), machines, story)
    assert drawn == told(Random(seed=3), machines, story)
    assert drawn != told(Random(seed=4), machines, story)
    assert set(drawn) == {f"p{i}>d{j}" for i in range(3) for j in range(2)}


def test_random_keeps_a_request_where_both_phases_are():
    assert set(told(Random(seed=0), "m0 m1", [1] * 20)) == {"m0>m0", "m1>m1"}


def test_power_of_two_takes_the_less_loaded_of_its_draws():
    """Of two machines both are drawn every time, so it is the shortest queue."""
    first, *others = told(PowerOfTwo(seed=0), "p0 p1 d0", [100, 10, 10, 10])
    assert {*others} == {"p0>d0", "p1>d0"} - {first}
    assert told(PowerOfTwo(seed=0), "p0 d0", [1, 1]) == ["p0>d0", "p0>d0"]


def test_power_of_two_never_takes_the_most_loaded_of_three():
    placed = told(PowerOfTwo(seed=1), "p0 p1 p2 d0", [1000] + [1] * 60)
    loaded = placed[0]
    assert loaded not in placed[1:]
    assert len({*placed}) == 3


def test_power_of_two_draws_by_its_seed():
    story = [1] * 40
    assert told(PowerOfTwo(seed=3), "p0 p1 p2 d0", story) == told(PowerOfTwo(seed=3), "p0 p1 p2 d0", story)
    assert told(PowerOfTwo(seed=3), "p0 p1 p2 d0", story) != told(PowerOfTwo(seed=4), "p0 p1 p2 d0", story)


def test_least_kv_weighs_contexts_where_token_jsq_counts_requests():
    story = [500, 10, 10, 10]
    assert [line[-2:] for line in told(LeastKV(), "p0 d0 d1", story)] == ["d0", "d1", "d1", "d1"]
    assert [line[-2:] for line in told(TokenJsq(), "p0 d0 d1", story)] == ["d0", "d1", "d0", "d1"]
    assert told(LeastKV(), "m0 m1", story) == ["m0>m0", "m1>m1", "m1>m1", "m1>m1"]


def test_least_kv_is_by_share():
    loads = [MachineLoad(0, Role.PREFILL, 1000), MachineLoad(1, Role.DECODE, 1000), MachineLoad(2, Role.DECODE, 100)]
    scheduler = Scheduler(loads, LeastKV())
    actions = [action for i in range(4) for action in scheduler.handle(RequestArrived(i, 0.0, 50, 0), 0.0)]
    assert [action.decode_on for action in actions if isinstance(action, RequestPlaced)] == [1, 2, 1, 1]


def test_short_answers_decode_directly_and_their_machine_keeps_its_pool():
    policy = DirectDecode(TokenJsq(), max_output_tokens=8)
    assert told(policy, "p0 p1 d0", [(10, 8), (10, 9), (10, 0)]) == ["p0>p0", "p1>d0", "p1>d0"]


# --- splitwise: 100 prompt tokens may wait, half of 1,000 KV tokens may be in use -------------------------------------


def splitwise(machines, story):
    return told(Splitwise(max_pending_prompt_tokens=100, max_kv_fraction=0.5), machines, story)


def test_splitwise_joins_the_shortest_queues():
    assert splitwise("p0 p1 d0 d1", [40, 20, 30, 60]) == ["p0>d0", "p1>d1", "p1>d1", "p0>d0"]


def test_splitwise_overflows_to_the_token_pool_and_then_queues():
    story = [60, 60, 60, 60, 60]
    assert splitwise("p0 p1 d0 d1", story) == ["p0>d0", "p1>d1", "d0 mixed", "d0>d0", "d1 mixed", "d1>d1", "p0>d0"]


def test_splitwise_asks_the_mixed_pool_before_the_token_pool():
    assert splitwise("p0 d0 d1", [60, 60, 30]) == ["p0>d0", "d1 mixed", "d1>d1", "p0>d0"]
    assert splitwise("p0 d0 d1", [90, 60, 30]) == ["p0>d0", "d1 mixed", "d1>d1", "d1>d0"]


def test_splitwise_gives_an_idle_machine_a_prompt_of_any_length():
    assert splitwise("p0 p1 d0", [300, 101, 50]) == ["p0>d0", "p1>d0", "d0 mixed", "d0>d0"]
    assert splitwise("p0 d0", [10, 200]) == ["p0>d0", "d0 mixed", "d0>d0"]


def test_splitwise_decodes_in_the_prompt_pool_where_token_machines_are_full():
    story = [400, 400, "prefilled 0", "prefilled 1", 98]  # 401 + 98 and its first token are just half
    assert splitwise("p0 p1 d0 d1", story) == ["p0>d0", "p1>d1", "p0>d0"]
    story[-1] = 99
    assert splitwise("p0 p1 d0 d1", story) == ["p0>d0", "p1>d1", "p0 mixed", "p0>p0"]


def test_splitwise_sends_a_machine_home_when_its_last_opposite_task_is_done():
    story = [60, 60, "prefilled 0", "prefilled 1"]
    assert splitwise("p0 d0", story) == ["p0>d0", "d0 mixed", "d0>d0", "d0 token"]


def test_splitwise_on_machines_for_both_phases_hands_nothing_over():
    assert splitwise("m0 m1", [60, 60, 60]) == ["m0>m0", "m1>m1", "m0>m0"]


def test_splitwise_serves_both_phases_with_the_pool_that_is_left():
    assert splitwise("p0 d0", ["died p0", 60]) == ["p0 dead", "d0 mixed", "d0>d0"]
    assert splitwise("p0 d0", ["died d0", 60]) == ["d0 dead", "p0 mixed", "p0>p0"]
