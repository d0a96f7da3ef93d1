"""When a request's tokens come out, against hand-computed times: 1 ms a prompt token, 30 ms a decode step, 5 ms a message,
and for a hand-over 2 ms and 1 ms a token (see `clusters`)."""

import pytest

from emu.core.batching.mixed_continuous import MixedContinuous
from emu.core.timing.constant import ConstantTiming
from tests.clusters import exactly, make_cluster, simulate


def test_colocated():
    run = simulate(make_cluster("m0"), [(1.0, 100, 3)])
    # Arrival 1.000, Assigned 1.005, prefill of 100 tokens to 1.105; then a token each 0.030.
    assert run.tokens_s(0) == exactly([1.105, 1.135, 1.165])
    requests = run.columns.requests
    assert requests.prefill_start_s == exactly([1.005])
    assert requests.decode_start_s == exactly([1.105])
    assert requests.end_s == exactly([1.17])  # RequestFinished has reached the scheduler
    assert len(run.columns.transfers) == 0


def test_disaggregated():
    run = simulate(make_cluster("p0 d0"), [(1.0, 100, 3)])
    # First token as above, at 1.105. KVReady is at d0 at 1.110, its pull request at the network at 1.115; the flow takes
    # 0.002 + 0.100, to 1.217. d0 is idle and starts at once: second token 1.247, a gap of 0.142 after the first.
    assert run.tokens_s(0) == exactly([1.105, 1.247, 1.277])
    transfers = run.columns.transfers
    assert (transfers.ready_s, transfers.pull_s, transfers.received_s) == (exactly([1.11]), exactly([1.11]), exactly([1.217]))
    requests = run.columns.requests
    assert requests.decode_start_s == exactly([1.217])
    assert requests.end_s == exactly([1.282])
    assert (requests.prefill_on.tolist(), requests.decode_on.tolist()) == ([0], [1])


def test_without_control_latency():
    run = simulate(make_cluster("p0 d0", latency_s=0.0), [(1.0, 100, 3)])
    # 1.000 + 0.100; + 0.102 for the flow and 0.030 for the step.
    assert run.tokens_s(0) == exactly([1.1, 1.232, 1.262])


def test_one_token_is_no_hand_over():
    run = simulate(make_cluster("p0 d0"), [(0.0, 100, 1)])
    assert run.tokens_s(0) == exactly([0.105])
    assert run.columns.requests.end_s == exactly([0.11])
    assert len(run.columns.transfers) == 0
    assert run.columns.steps.machine.tolist() == [0]


def test_two_requests_share_decode_steps():
    run = simulate(make_cluster("p0 d0"), [(0.0, 100, 8), (0.02, 60, 4)])
    # Request 0: first token 0.105, decodes from 0.105 + 0.010 + 0.102 = 0.217; steps end at 0.247, 0.277, 0.307, 0.337, ...
    # Request 1: Assigned at 0.025 while p0 prefills; its own prefill from 0.105 to 0.165. Its KV cache is at d0 at
    # 0.165 + 0.010 + 0.062 = 0.237, in mid-step: it joins at 0.247, where the run of steps in flight is cut.
    assert run.tokens_s(0) == exactly([0.105, 0.247, 0.277, 0.307, 0.337, 0.367, 0.397, 0.427])
    assert run.tokens_s(1) == exactly([0.165, 0.277, 0.307, 0.337])
    assert run.columns.requests.decode_start_s == exactly([0.217, 0.247])
    steps = run.columns.steps
    assert steps.num_decodes[steps.machine == 1].tolist() == [1, 2, 2, 2, 1, 1, 1]
    # 101 tokens of context in request 0's first step, one more each step; request 1 begins with 61 and ends with 63.
    assert steps.context_tokens[steps.machine == 1].tolist() == [101, 102 + 61, 103 + 62, 104 + 63, 105, 106, 107]


def test_prompts_queue_first_come_first_served():
    run = simulate(make_cluster("p0 d0"), [(0.0, 1000, 1), (0.1, 1500, 1), (0.2, 500, 1), (0.3, 100, 1), (0.4, 3000, 1)])
    # 0.005 to 1.005 the first one; then 1500 + 500, as 100 more would be above 2,048; then 100, beside which 3,000 has no
    # room; a prompt longer than 2,048 runs alone.
    assert run.columns.requests.first_token_s == exactly([1.005, 3.005, 3.005, 3.105, 6.105])


# Times below are sums of powers of two, so that "at a boundary" means just that.
BINARY = ConstantTiming(prefill_s_per_token=1 / 1024, decode_step_s=1 / 32)


@pytest.mark.parametrize(
    ("arrives", "joins", "tokens"),
    [
        (6, 6, [4, 6, 10, 12, 14, 16, 18]),  # at a boundary: a message goes before the end of a step of the same time
        (7, 8, [4, 6, 8, 12, 14, 16, 18]),
        (8, 8, [4, 6, 8, 12, 14, 16, 18]),
        (9, 10, [4, 6, 8, 10, 14, 16, 18]),
    ],
)
def test_an_arrival_cuts_the_run_at_the_next_boundary(arrives, joins, tokens):
    cluster = make_cluster("m0", timing=BINARY, latency_s=0.0, batching=MixedContinuous(2048, 4))
    run = simulate(cluster, [(0.0, 64, 7), (arrives / 64, 32, 2)])
    # In 64ths of a second: request 0 prefills in 4 and decodes in steps of 2, the two share a mixed step of 2 + 2.
    assert run.columns.requests.prefill_start_s[1] == joins / 64
    assert run.tokens_s(0) == [token / 64 for token in tokens]
    assert run.tokens_s(1) == [(joins + 4) / 64, (joins + 6) / 64]
