"""Prompts prefilled in chunks, against hand-computed times: without control latency, 1 ms a prompt token and 30 ms a decode
step, the sum for a mixed one."""

import pytest

from emu.core.batch import Prefill
from emu.core.batching.chunked_prefill import ChunkedPrefill
from emu.core.timing.chunk import prefill_pass_s
from emu.core.timing.profile import ProfileTiming
from tests.clusters import TIMING, exactly, make_cluster, simulate

# Attention is half of the work at 1,000 tokens, so that what a token attends to soon costs more than the token.
ATTENTIVE = ProfileTiming(
    prefill_tokens=[100, 1000],
    prefill_s=[0.02, 0.1],
    pair_saving_s=0.0,
    attention_per_token=1e-3,
    decode_num_seqs=[1, 4],
    decode_s=[0.03, 0.04],
    kv_read_s_per_token=1e-6,
    max_seq_context_tokens=8320,
)
LONG = 6000


def run_on(names, requests, budget=100, **settings):
    cluster = make_cluster(names, batching=ChunkedPrefill(max_batch_tokens=budget), latency_s=0.0, **settings)
    return simulate(cluster, requests)


def test_a_prompt_longer_than_the_budget_takes_several_steps():
    run = run_on("m0", [(0.0, 250, 3)])
    assert run.columns.steps.prefill_tokens.tolist()[:3] == [100, 100, 50]
    assert run.tokens_s(0) == exactly([0.25, 0.28, 0.31])
    assert run.columns.requests.prefill_start_s[0] == 0.0


def test_prompts_never_stop_the_decodes_beside_them():
    run = run_on("m0", [(0.0, 10, 6), (0.02, 250, 2)])
    # Request 0: its prefill to 0.01, a step to 0.04; then chunks of 99, 99 and 52 tokens, each with its next token.
    assert run.tokens_s(0) == exactly([0.01, 0.04, 0.169, 0.298, 0.38, 0.41])
    assert run.tokens_s(1) == exactly([0.38, 0.41])
    assert not run.columns.steps.num_paused.any()


def test_the_rest_of_a_prompt_and_the_next_one_share_a_step():
    run = run_on("m0", [(0.0, 150, 1), (0.0, 30, 1), (0.0, 90, 1)])
    assert run.columns.steps.prefill_tokens.tolist() == [100, 100, 70]
    assert [run.tokens_s(i)[0] for i in range(3)] == exactly([0.2, 0.2, 0.27])


def test_decodes_beyond_the_budget_take_turns():
    run = run_on("m0", [(0.0, 1, 9), (0.0, 1, 9), (0.05, 5, 1)], budget=2)
    # Both prompts to 0.002, steps to 0.032 and 0.062; then the budget is full of decodes and the third prompt waits for an end.
    assert run.tokens_s(2)[0] > max(run.tokens_s(0)[-1], run.tokens_s(1)[-1]) - 0.031
    assert len(run.tokens_s(0)) == len(run.tokens_s(1)) == 9


def test_a_machine_dies_between_two_chunks():
    run = simulate(make_cluster("m0 m1", batching=ChunkedPrefill(100), latency_s=0.0), [(0.0, 250, 3)], deaths={"m0": 0.15})
    assert run.columns.requests.attempts.tolist() == [2]
    assert run.tokens_s(0) == exactly([0.4, 0.43, 0.46])


def test_a_prompt_machine_hands_over_after_the_last_chunk():
    run = run_on("p0 d0", [(0.0, 250, 2)])
    # 250 tokens move in 0.25 s after 2 ms, and the second token takes a step.
    assert run.tokens_s(0) == exactly([0.25, 0.25 + 0.252 + 0.03])


def test_a_later_chunk_pays_for_what_it_attends_to():
    chunks = [Prefill(0, 1, 500, 0, before, LONG - before - 500) for before in range(0, LONG, 500)]
    chunks_s = [prefill_pass_s(ATTENTIVE, [chunk], 0, 0) for chunk in chunks]
    assert sum(chunks_s) >= prefill_pass_s(ATTENTIVE, [Prefill(0, 1, LONG, 0)], 0, 0)
    assert chunks_s[-1] > chunks_s[4] > chunks_s[0] == ATTENTIVE.prefill_s([500])
    assert prefill_pass_s(TIMING, [chunks[3]], 2, 100) == pytest.approx(TIMING.mixed_s([500], 2, 100))
