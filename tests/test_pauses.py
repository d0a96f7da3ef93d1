"""Decodes paused in favour of prompts, against hand-computed times: without control latency, 1 ms a prompt token and 30 ms a
decode step, the sum for a mixed one."""

import pytest

from emu.core.batching.fcfs import Fcfs
from emu.core.batching.mixed_continuous import MixedContinuous
from emu.core.timing.constant import ConstantTiming
from tests.clusters import exactly, make_cluster, simulate


def run_on_one_machine(batching, requests):
    return simulate(make_cluster("m0", batching=batching, latency_s=0.0), requests)


def paused(run) -> list[int]:
    num_paused = run.columns.steps.num_paused
    return num_paused[: num_paused.nonzero()[0][-1] + 1].tolist()


def test_mixed_continuous_pauses_up_to_the_limit():
    prompts = [(0.05, 100, 3)] * 4
    run = run_on_one_machine(MixedContinuous(max_batch_tokens=100, max_num_pauses=2), [(0.0, 10, 8), *prompts])
    # Request 0: prefill to 0.01, steps to 0.04 and 0.07. Then prompts of 100 tokens leave no room for a decode:
    #   0.07 to 0.17  prompt 1; request 0 paused
    #   0.17 to 0.27  prompt 2; 0 (second time) and 1 paused
    #   0.27 to 0.40  prompt 3 with 0, which nothing displaces any more; 1 (second time) and 2 paused
    #   0.40 to 0.53  prompt 4 with 0 and 1; 2 and 3 paused
    #   0.53 to 0.56  all
    assert paused(run) == [0, 0, 0, 1, 2, 2, 2]
    assert run.tokens_s(0) == exactly([0.01, 0.04, 0.07, 0.4, 0.53, 0.56, 0.59, 0.62])
    assert run.tokens_s(1) == exactly([0.17, 0.53, 0.56])
    assert run.tokens_s(2) == exactly([0.27, 0.56, 0.59])
    assert run.tokens_s(3) == exactly([0.4, 0.56, 0.59])
    assert run.tokens_s(4) == exactly([0.53, 0.56, 0.59])


def test_mixed_continuous_takes_first_who_was_paused_most():
    prompts = [(0.1, 100, 1)] * 3
    run = run_on_one_machine(MixedContinuous(max_batch_tokens=101, max_num_pauses=4), [(0.0, 10, 7), (0.0, 10, 6), *prompts])
    # Request 0 alone to 0.01; 1's prompt with 0's decode to 0.05; both to 0.08 and 0.11. Then one decode fits a step:
    # the earlier arrival to 0.24, then the one that was paused to 0.37, then the earlier one again to 0.50.
    assert run.tokens_s(0) == exactly([0.01, 0.05, 0.08, 0.11, 0.24, 0.5, 0.53])
    assert run.tokens_s(1) == exactly([0.05, 0.08, 0.11, 0.37, 0.53, 0.56])
    assert paused(run) == [0, 0, 0, 0, 1, 1, 1]


def test_fcfs_makes_all_decodes_wait_up_to_the_limit():
    prompts = [(0.05, 100, 1)] * 4
    run = run_on_one_machine(Fcfs(max_batch_tokens=100, max_num_pauses=2), [(0.0, 10, 6), *prompts])
    # Two prompts, 0.07 to 0.27; then a step of the decodes; two more prompts, 0.30 to 0.50.
    assert run.tokens_s(0) == exactly([0.01, 0.04, 0.07, 0.3, 0.53, 0.56])
    assert run.columns.requests.first_token_s[1:] == exactly([0.17, 0.27, 0.4, 0.5])
    assert paused(run) == [0, 0, 0, 1, 1, 0, 1, 1]


def test_fcfs_counts_pauses_in_a_row():
    prompts = [(at_s, 100, 1) for at_s in (0.05, 0.25, 0.46)]
    run = run_on_one_machine(Fcfs(max_batch_tokens=100, max_num_pauses=2), [(0.0, 10, 16), *prompts])
    # Each prompt waits for the end of the running decode step alone; between them the decode runs and the count starts anew.
    #   steps to 0.04, 0.07; prompt to 0.17; steps to 0.20, 0.23, 0.26; to 0.36; to 0.39, 0.42, 0.45, 0.48; to 0.58
    assert run.columns.requests.first_token_s[1:] == exactly([0.17, 0.36, 0.58])


def test_a_lone_prompt_waits_for_the_step_in_flight_and_no_more():
    """However many came before it. `simulate` has the steps one by one as well."""
    cluster = make_cluster("m0", batching=Fcfs(2048, max_num_pauses=4), timing=ConstantTiming(1.37e-4, 0.0313), latency_s=0.0)
    run = simulate(cluster, [(0.0, 100, 400), *((float(second), 500, 1) for second in range(1, 11))])
    # Request 0: prefill to 0.0137; its 32nd step ends at 1.0153. Prompt 1, of 0.0685 s, to 1.0838; 30 steps to 2.0228.
    # Prompt 2 to 2.0913; 30 steps to 3.0303. To 3.0988; 29 to 4.0065. To 4.075; 30 to 5.014. To 5.0825; 30 to 6.0215.
    # To 6.09; 30 to 7.029. To 7.0975; 29 to 8.0052. To 8.0737; 30 to 9.0127. To 9.0812; 30 to 10.0202.
    waits_s = run.columns.requests.prefill_start_s[1:] - run.columns.requests.arrival_s[1:]
    assert waits_s == exactly([0.0153, 0.0228, 0.0303, 0.0065, 0.014, 0.0215, 0.029, 0.0052, 0.0127, 0.0202])


@pytest.mark.parametrize("policy", [Fcfs, MixedContinuous])
def test_a_paused_decode_keeps_its_blocks(policy):
    cluster = make_cluster("m0", batching=policy(max_batch_tokens=100, max_num_pauses=1), latency_s=0.0, num_blocks=9)
    run = simulate(cluster, [(0.0, 20, 4), (0.03, 100, 1), (0.03, 120, 1)])
    # Request 0 has 2 of the 9 blocks. Request 1 takes the other 7 and prefills from 0.05 to 0.15, with 0 paused. Request 2
    # needs 8 and so waits until 0 has decoded to its end, at 0.21.
    assert paused(run) == [0, 0, 1]
    assert run.tokens_s(0) == exactly([0.02, 0.05, 0.18, 0.21])
    assert run.columns.requests.first_token_s[1:] == exactly([0.15, 0.33])
