"""What becomes of requests whose machine dies, against hand-computed times (the figures of `clusters`)."""

import pytest

from emu.core.messages import SCHEDULER
from emu.results.columns import FAILED, FINISHED
from tests.clusters import exactly, make_cluster, simulate
from tests.stalling import stalled


def test_in_prefill():
    run = simulate(make_cluster("p0 p1 d0"), [(0.0, 100, 3)], deaths={"p0": 0.05})
    # The scheduler knows at 0.055; p1 starts at 0.060. Hand-over 0.010 + 0.102.
    assert run.tokens_s(0) == exactly([0.16, 0.302, 0.332])
    assert run.columns.requests.attempts.tolist() == [2]
    assert run.columns.requests.num_recomputed.tolist() == [0]
    assert run.columns.requeues.cause.tolist() == ["machine 0 died: killed by faults"]
    assert run.columns.requeues.evicted.tolist() == [False]


@pytest.mark.parametrize(("machines", "dies"), [("p0 p1 d0", "p0"), ("p0 d0 d1", "d0")])
def test_in_transfer(machines, dies):
    run = simulate(make_cluster(machines), [(0.0, 100, 3)], deaths={dies: 0.15})
    # First token 0.105; its KV cache would have been at d0 at 0.217. The scheduler knows at 0.155 and the request starts
    # again from scratch, at 0.160: whether the source died (on p1) or the destination (on p0 again, then to d1).
    # Its first token comes again at 0.260, its KV cache is there at 0.260 + 0.112 = 0.372.
    assert run.tokens_s(0) == exactly([0.105, 0.402, 0.432])
    requests = run.columns.requests
    assert requests.num_recomputed.tolist() == [1]
    assert requests.num_tokens_out.tolist() == [3]
    assert requests.end_s == exactly([0.437])
    assert run.columns.transfers.attempt.tolist() == [2]


def test_at_the_end_of_a_transfer():
    run = simulate(make_cluster("p0 p1 d0"), [(0.0, 100, 3)], deaths={"p0": 0.216})
    # 1 ms before the last byte. d0 hears of it only at 0.226, and must not decode what it never got in between.
    # Known at 0.221, p1 prefills from 0.226 to 0.326, the KV cache is there at 0.438.
    assert run.tokens_s(0) == exactly([0.105, 0.468, 0.498])


@pytest.mark.parametrize("stall_s", [0.05, 0.15, 0.25, 1.0])
def test_the_word_of_it_may_come_after_the_next_attempt(stall_s):
    make_runtime = stalled({(SCHEDULER, 2): stall_s})
    run = simulate(make_cluster("p0 p1 d0"), [(0.0, 100, 3)], deaths={"p0": 0.15}, make_runtime=make_runtime)
    # As above, p0 dead in mid-transfer. d0 is offered the new KV cache at 0.265 and is told that the old one will not come
    # at 0.160 + stall_s: before that, during the new transfer, or long after all is over. Nothing is different.
    assert run.tokens_s(0) == exactly([0.105, 0.402, 0.432])


def test_in_decode():
    run = simulate(make_cluster("p0 d0 d1"), [(0.0, 100, 5)], deaths={"d0": 0.3})
    # Tokens 0.105, 0.247, 0.277 and d0 is dead. Known at 0.305, p0 prefills from 0.310 to 0.410, at d1 by 0.522. Tokens 1 to
    # 3 come out again at 0.410, 0.552 and 0.582: the gap before the fourth, at 0.612, holds the recovery.
    assert run.tokens_s(0) == exactly([0.105, 0.247, 0.277, 0.612, 0.642])
    assert run.columns.requests.num_recomputed.tolist() == [3]
    assert run.pool_moves() == [(0.305, 1, "dead")]


def test_others_go_on():
    cluster = make_cluster("p0 p1 d0 d1")
    requests = [(0.0, 100, 5), (0.0, 100, 5), (1.0, 50, 2)]
    undisturbed = simulate(cluster, requests)
    run = simulate(cluster, requests, deaths={"d1": 0.3})
    assert undisturbed.columns.requests.decode_on.tolist() == [2, 3, 2]
    assert run.tokens_s(0) == undisturbed.tokens_s(0)
    assert run.tokens_s(2) == undisturbed.tokens_s(2)
    assert run.columns.requests.attempts.tolist() == [1, 2, 1]


def test_the_last_prompt_machine():
    run = simulate(make_cluster("p0 d0"), [(0.0, 100, 3)], deaths={"p0": 0.05})
    # d0 serves both phases, from 0.060; it is in the mixed pool until its prefill is known to be done.
    assert run.tokens_s(0) == exactly([0.16, 0.19, 0.22])
    assert run.pool_moves() == [(0.055, 0, "dead"), (0.055, 1, "mixed"), (0.165, 1, "token")]
    assert len(run.columns.transfers) == 0


def test_the_last_token_machine():
    run = simulate(make_cluster("p0 d0"), [(0.0, 100, 3)], deaths={"d0": 0.15})
    # p0 held the KV cache for d0. It forgets it, prefills again from 0.160 and decodes; in the mixed pool until that is done.
    assert run.tokens_s(0) == exactly([0.105, 0.29, 0.32])
    assert run.pool_moves() == [(0.155, 1, "dead"), (0.155, 0, "mixed"), (0.325, 0, "prompt")]


def test_all():
    run = simulate(make_cluster("p0 d0"), [(0.0, 100, 3), (0.5, 100, 3)], deaths={"p0": 0.05, "d0": 0.08})
    requests = run.columns.requests
    assert requests.status.tolist() == [FAILED, FAILED]
    assert [requests.causes[cause] for cause in requests.cause] == ["no machine is left alive"] * 2
    assert requests.end_s == exactly([0.085, 0.5])
    assert requests.prefill_on.tolist() == [1, -1]  # the first one's last attempt; the second was never placed


def test_after_the_end():
    run = simulate(make_cluster("p0 d0"), [(0.0, 100, 3)], deaths={"d0": 5.0})
    assert run.columns.requests.status.tolist() == [FINISHED]
    assert run.pool_moves() == []  # no part of the run, which would last so long and cost as much


def test_what_is_unfinished_at_the_deadline_fails():
    run = simulate(make_cluster("p0 d0"), [(0.0, 100, 3), (1.0, 100, 50)], max_drain_s=0.4)
    requests = run.columns.requests
    assert requests.status.tolist() == [FINISHED, FAILED]
    assert requests.end_s[1] == exactly(1.4)
    assert requests.causes[requests.cause[1]] == "unfinished 0.4 s after the last arrival"
    # First token 1.105, KV cache at d0 at 1.217; Cancelled is there at 1.405, and the step in flight ends at 1.427.
    assert run.tokens_s(1) == exactly([1.105] + [1.217 + 0.03 * step for step in range(1, 8)])
