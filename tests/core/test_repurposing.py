"""Machines that change sides when load drifts."""

import pytest

from emu.core.facts import PoolChanged
from emu.core.messages import KVTransferred, PrefillDone, RequestArrived, RequestFinished
from emu.core.placement.token_jsq import TokenJsq
from emu.core.pools import MachineLoad, Pool, Role
from emu.core.repurposing import LoadDrift
from emu.core.scheduler import Scheduler
from emu.core.setting import SettingError
from tests.clusters import make_cluster, simulate

ROLES = {"p": Role.PREFILL, "d": Role.DECODE}


def drift(**changes):
    marks = dict(max_prompt_tokens=100, min_prompt_tokens=20, max_kv_share=0.5, min_kv_share=0.4)
    return LoadDrift(**(dict(check_s=1, sustain_s=3) | marks | changes))


def scheduler_of(names, **changes):
    loads = [MachineLoad(index, ROLES[name[0]], 1000) for index, name in enumerate(names.split())]
    return Scheduler(loads, TokenJsq(), drift(**changes))


def moves(scheduler, *events):
    """(time, machine, pool) of each move on events given as (time, event)."""
    return [
        (now_s, action.machine, action.pool)
        for now_s, event in events
        for action in scheduler.handle(event, now_s)
        if isinstance(action, PoolChanged)
    ]


def arrivals(times_s, prompt_tokens):
    return [(now_s, RequestArrived(i, now_s, prompt_tokens, 0)) for i, now_s in enumerate(times_s)]


def test_a_token_machine_is_re_purposed_when_prompts_pile_up_for_long():
    """From the check at 1 s on more than 100 tokens wait at p0; three seconds later a machine changes sides."""
    scheduler = scheduler_of("p0 d0 d1 d2")
    assert moves(scheduler, *arrivals([0, 1, 2, 3, 4], 101)) == [(4, 2, "mixed")]  # it still has a decode
    assert scheduler.pools.machines[2].home is Pool.PROMPT
    assert moves(scheduler, (5, PrefillDone(1, 1)), (5, KVTransferred(1, 1)), (6, RequestFinished(1, 1))) == [(6, 2, "prompt")]


def test_the_next_one_takes_as_long_again():
    assert [now_s for now_s, *_ in moves(scheduler_of("p0 d0 d1 d2 d3"), *arrivals(range(8), 101))] == [4, 7]


def test_not_before_it_has_lasted():
    assert moves(scheduler_of("p0 d0 d1 d2", sustain_s=10), *arrivals(range(9), 101)) == []


def test_an_imbalance_that_ends_starts_anew():
    scheduler = scheduler_of("p0 d0 d1 d2")
    story = arrivals([0, 1, 2], 101)
    relief = [(2.5, PrefillDone(i, 1)) for i in range(3)]
    again = [(now_s, RequestArrived(10 + i, now_s, 101, 0)) for i, now_s in enumerate([3, 4, 5, 6])]
    assert moves(scheduler, *story, *relief, *again) == []
    assert [move[0] for move in moves(scheduler, (7, RequestArrived(20, 7.0, 101, 0)))] == [7]


def test_not_while_the_other_side_is_short_too():
    story = []
    for i, (now_s, event) in enumerate(arrivals(range(18), 101)):
        story += [(now_s, event), (now_s, PrefillDone(i, 1))] if i < 9 else [(now_s, event)]
    assert moves(scheduler_of("p0 d0 d1", min_prompt_tokens=0), *story) == []
    assert moves(scheduler_of("p0 d0 d1 d2 d3", min_prompt_tokens=0), *story) != []


def test_each_side_keeps_a_machine():
    assert moves(scheduler_of("p0 d0"), *arrivals(range(9), 101)) == []


def test_a_prompt_machine_is_re_purposed_when_contexts_fill_the_token_side():
    scheduler = scheduler_of("p0 p1 p2 d0")
    story = []
    for i, (now_s, event) in enumerate(arrivals(range(9), 100)):
        story += [(now_s, event), (now_s, PrefillDone(i, 1))]
    assert moves(scheduler, *story) == [(8, 0, "token")]  # above 500 of 1,000 tokens at 5 s, idle


def test_a_run_with_drifting_load_is_in_order():
    """Long prompts with short answers, then the reverse: machines go over and come back; nothing is lost."""
    prompts = [(0.1 * i, 600, 2) for i in range(100)]
    answers = [(40 + 0.1 * i, 60, 250) for i in range(200)]
    policy = drift(max_prompt_tokens=600, min_prompt_tokens=300, max_kv_share=0.3, min_kv_share=0.3)
    run = simulate(make_cluster("p0 p1 d0 d1 d2", repurposing=policy, num_blocks=300), prompts + answers)
    moves = [(machine, pool) for _, machine, pool in run.pool_moves() if pool != "mixed"]
    assert {(machine, pool) for machine, pool in moves if machine >= 2} >= {(2, "prompt")}
    assert any(pool == "token" for _, pool in moves[moves.index((2, "prompt")) :])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (dict(check_s=0), "repurposing.check_s=0: expected a number > 0"),
        (dict(min_prompt_tokens=101), "repurposing.min_prompt_tokens=101: expected a number from 0 to 100"),
        (dict(max_kv_share=2), "repurposing.max_kv_share=2: expected a number from 0 to 1"),
        (dict(min_kv_share=0.6), "repurposing.min_kv_share=0.6: expected a number from 0 to 0.5"),
    ],
)
def test_wrong_settings(changes, line):
    with pytest.raises(SettingError) as caught:
        drift(**changes)
    assert str(caught.value) == line
