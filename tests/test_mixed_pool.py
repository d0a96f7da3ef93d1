"""Splitwise placement: machines that go into the mixed pool and home, against hand-computed times (figures of `clusters`)."""

from emu.core.placement.splitwise import Splitwise
from tests.clusters import exactly, make_cluster, simulate


def test_a_token_machine_takes_prompts():
    cluster = make_cluster("p0 d0 d1", placement=Splitwise(max_pending_prompt_tokens=250, max_kv_fraction=0.9))
    run = simulate(cluster, [(0.0, 100, 3)] * 4)
    # p0 takes 0 and 1; their decodes go to d0 and d1. A third would make 300 pending tokens, above 250, and the mixed pool
    # is empty: request 2 goes to d0, the first of the token pool, for both phases. Request 3 finds d0 in the mixed pool with
    # 100 pending tokens; its decode goes to d1, the token pool's only machine.
    requests = run.columns.requests
    assert requests.prefill_on.tolist() == [0, 0, 1, 1]
    assert requests.decode_on.tolist() == [1, 2, 1, 2]
    # d0 prefills 2 from 0.005, which decodes with 0 once prompt 3 is done too, at 0.205. That is known at 0.210.
    assert run.tokens_s(2) == exactly([0.105, 0.235, 0.265])
    assert run.tokens_s(3)[0] == exactly(0.205)
    assert run.pool_moves() == [(0.0, 1, "mixed"), (0.21, 1, "token")]


def test_a_prompt_machine_takes_decodes():
    cluster = make_cluster("p0 p1 d0", d0=10, placement=Splitwise(max_pending_prompt_tokens=8192, max_kv_fraction=0.9))
    run = simulate(cluster, [(0.0, 100, 3), (0.0, 100, 3)])
    # d0 may have 0.9 x 160 tokens and has 101 of request 0. Request 1 prefills on p1 and decodes on p0, the first of those
    # with nothing to decode: its KV cache is there at 0.105 + 0.112 = 0.217, its end is known at 0.282.
    requests = run.columns.requests
    assert requests.prefill_on.tolist() == [0, 1]
    assert requests.decode_on.tolist() == [2, 0]
    assert run.tokens_s(1) == exactly([0.105, 0.247, 0.277])
    assert run.pool_moves() == [(0.0, 0, "mixed"), (0.282, 0, "prompt")]


def test_if_every_pool_is_full_the_own_one_queues():
    cluster = make_cluster("p0 d0", placement=Splitwise(max_pending_prompt_tokens=150, max_kv_fraction=0.9))
    run = simulate(cluster, [(0.0, 100, 2)] * 4)
    # 0 to p0, 1 to d0, which is mixed from then on; neither takes another: 2 and 3 queue in the prompt pool.
    assert run.columns.requests.prefill_on.tolist() == [0, 1, 0, 0]
    # While the token pool is empty the mixed one decodes.
    assert run.columns.requests.decode_on.tolist() == [1, 1, 1, 1]


def test_a_prompt_above_the_threshold_goes_where_no_queue_is():
    cluster = make_cluster("p0 d0", placement=Splitwise(max_pending_prompt_tokens=150, max_kv_fraction=0.9))
    run = simulate(cluster, [(0.0, 151, 2), (0.1, 151, 2), (0.5, 151, 2)])
    # The first one is not yet prefilled when the second one comes, at 0.100.
    assert run.columns.requests.prefill_on.tolist() == [0, 1, 0]
