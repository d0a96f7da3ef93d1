"""What becomes of requests whose KV cache cannot be had, both machines alive, against hand-computed times (see `clusters`)."""

import pytest

from emu.results.columns import FAILED, FINISHED
from tests.clusters import exactly, make_cluster, simulate
from tests.losing import CAUSE, Loss, losing

LOST = f"its KV cache did not get from machine 0 to machine 1: {CAUSE}"


@pytest.mark.parametrize("contention", [False, True])
@pytest.mark.parametrize("after_s", [0.05, 0.102, 0.5])  # its flow as modelled takes 0.102
def test_the_request_starts_again_with_its_first_token(after_s, contention):
    cluster = make_cluster("p0 d0", contention=contention)
    run = simulate(losing(cluster, lambda _, attempt: Loss(after_s) if attempt == 1 else None), [(0.0, 100, 4)])
    # First token at 0.105, flow asked for at 0.115. d0 is told after_s and 0.005 later; by way of the scheduler p0 starts again
    # 0.010 after that. Its prefill of 101 tokens gives the second one; the KV cache takes 0.010 + 0.103.
    second_s = 0.115 + after_s + 0.015 + 0.101
    assert run.tokens_s(0) == exactly([0.105, second_s, second_s + 0.113 + 0.03, second_s + 0.113 + 0.06])
    columns = run.columns
    assert columns.requests.attempts.tolist() == [2]
    assert columns.requests.num_recomputed.tolist() == [0]
    assert columns.requeues.cause.tolist() == [LOST]
    assert columns.requeues.evicted.tolist() == [False]
    assert columns.transfers.attempt.tolist() == [2]


def test_the_link_is_free_as_soon_as_the_flow_is_called_off():
    cluster = losing(make_cluster("p0 p1 d0", contention=True), lambda *key: Loss(0.05) if key == (0, 1) else None)
    run = simulate(cluster, [(0.0, 100, 3), (0.0, 100, 3)])
    # Two flows from 0.115, with half of d0's NIC each. d0 is told of the loss at 0.170 and the network at 0.175: the other
    # has 70 of its 100 tokens left, until 0.245.
    assert run.tokens_s(1) == exactly([0.105, 0.277, 0.307])


def test_layers_lost_while_the_prefill_runs_leave_no_token_to_keep():
    cluster = make_cluster("p0 d0", layerwise_min_tokens=1)
    run = simulate(losing(cluster, lambda _, attempt: Loss(0.02) if attempt == 1 else None), [(0.0, 100, 3)])
    # Flow asked for at 0.015, d0 told at 0.040, the scheduler at 0.045: the first token is to come at 0.105, and comes again at
    # 0.205. The last of five layers is sent until 0.225.
    assert run.tokens_s(0) == exactly([0.105, 0.227 + 0.03, 0.227 + 0.06])
    assert run.columns.requests.num_recomputed.tolist() == [1]


def test_the_third_time_it_fails():
    run = simulate(losing(make_cluster("p0 d0"), lambda *_: Loss(0.05)), [(0.0, 100, 9), (9.0, 10, 1)])
    requests = run.columns.requests
    assert requests.status.tolist() == [FAILED, FINISHED]
    assert requests.causes[requests.cause[0]] == f"{LOST} (failed transfer 3 of at most 3)"
    # 0.115 + 0.060, and twice 0.005 + 0.010 + 0.060 after prefills of 101 and 102 tokens
    assert requests.end_s[0] == exactly(0.175 + 0.101 + 0.102 + 2 * 0.075)
    assert requests.num_tokens_out.tolist() == [3, 1]


def test_word_of_a_loss_that_comes_after_the_kv_cache_changes_nothing():
    cluster, requests = make_cluster("p0 d0"), [(0.0, 100, 3)]
    run = simulate(losing(cluster, lambda *_: Loss(0.3, for_good=False)), requests)
    assert run.tokens_s(0) == simulate(cluster, requests).tokens_s(0)
    assert run.columns.drops.message.tolist() == ["KVLost"]
