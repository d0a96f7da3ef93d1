"""Runs against what is known without the emulator: queueing theory, and a simulator that takes no short cuts."""

import math
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.core.batching.fcfs import Fcfs
from emu.core.batching.mixed_continuous import MixedContinuous
from emu.core.timing.constant import ConstantTiming
from emu.workload.fixed import Fixed
from tests.clusters import UNEVEN, make_cluster, simulate

PROMPT_TOKENS, SERVICE_S, LATENCY_S = 100, 0.1, 0.005
NUM_BATCHES = 20


@pytest.fixture(scope="module", params=[0.5, 0.7])
def single_server(request):
    """(load, arrivals, waits) of a machine that serves one-token answers one by one: an M/D/1 queue."""
    load = request.param
    cluster = make_cluster(
        "m0",
        timing=ConstantTiming(SERVICE_S / PROMPT_TOKENS, 1.0),
        batching=Fcfs(max_batch_tokens=PROMPT_TOKENS, max_num_pauses=4),
        latency_s=LATENCY_S,
    )
    source = Fixed(PROMPT_TOKENS, 1, rate_rps=load / SERVICE_S, duration_s=1000 / load, arrivals="poisson", cv=1)
    workload = source.build(seed=0)
    requests = simulate(cluster, workload).columns.requests
    return load, workload.arrival_s, requests.prefill_start_s - requests.arrival_s - LATENCY_S


def test_each_wait_follows_from_the_one_before(single_server):
    """Lindley (1952): the next wait is max(0, wait + service - gap between the arrivals)."""
    _, arrival_s, wait_s = single_server
    expected_s = accumulate(np.diff(arrival_s), lambda wait, gap: max(0.0, wait + SERVICE_S - gap), initial=0.0)
    assert wait_s == pytest.approx(list(expected_s), rel=0, abs=1e-9)


def test_mean_wait_is_that_of_an_md1_queue(single_server):
    """Pollaczek and Khinchine: load x service / (2 x (1 - load))."""
    load, _, wait_s = single_server
    expected_s = load * SERVICE_S / (2 * (1 - load))
    # Waits are correlated, means of long batches of them hardly: their spread gives the error of the mean. Student's t with
    # 19 degrees of freedom is beyond 4 once in 1,300 times; the seed is fixed.
    batch_means_s = np.array([batch.mean() for batch in np.array_split(wait_s, NUM_BATCHES)])
    error_s = batch_means_s.std(ddof=1) / math.sqrt(NUM_BATCHES)
    assert abs(wait_s.mean() - expected_s) < 4 * error_s
    assert error_s < 0.06 * expected_s  # else the line above would say little


def simulate_naively(requests, timing, max_batch_tokens, mixed) -> list[list[float]]:
    """Token times of each request on one machine with memory for all: step by step, token by token.

    Prompts go first; decodes wait for them, or share their steps if `mixed`.
    """
    waiting = list(range(len(requests)))
    decoding: list[int] = []
    tokens_s: list[list[float]] = [[] for _ in requests]
    now_s = -math.inf
    while waiting or decoding:
        here = [index for index in waiting if requests[index][0] <= now_s]
        if not here and not decoding:  # idle: the next one starts at once, whoever else comes with it
            here = waiting[:1]
            now_s = requests[here[0]][0]
        room = max_batch_tokens - (len(decoding) if mixed else 0)
        prompts: list[int] = []
        for index in here:
            if prompts and sum(requests[i][1] for i in [*prompts, index]) > room:
                break
            prompts.append(index)
        decodes = decoding if mixed or not prompts else []
        context_tokens = sum(requests[index][1] + len(tokens_s[index]) for index in decodes)
        now_s += timing.mixed_s([requests[index][1] for index in prompts], len(decodes), context_tokens)
        for index in [*prompts, *decodes]:
            tokens_s[index].append(now_s)
        waiting = [index for index in waiting if index not in prompts]
        decoding = [index for index in [*decoding, *prompts] if len(tokens_s[index]) < requests[index][2]]
    return tokens_s


gaps_and_lengths = st.tuples(st.sampled_from([0.0, 0.01, 0.2, 1.7]), st.integers(1, 900), st.integers(1, 60))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(gaps_and_lengths, min_size=1, max_size=20), st.booleans())
def test_one_machine_against_a_naive_simulator(drawn, mixed):
    arrivals_s = accumulate(gap for gap, _, _ in drawn)
    requests = [(at_s, *lengths) for at_s, (_, *lengths) in zip(arrivals_s, drawn, strict=True)]
    # As the naive simulator has it: nothing, or everything, is displaced by prompts for as long as there are any.
    batching = MixedContinuous(1000, max_num_pauses=0) if mixed else Fcfs(1000, max_num_pauses=2**31 - 1)
    cluster = make_cluster("m0", timing=UNEVEN, batching=batching, latency_s=0.0, num_blocks=10**6)
    run = simulate(cluster, requests)
    expected = simulate_naively(requests, UNEVEN, 1000, mixed)
    assert [run.tokens_s(index) for index in range(len(requests))] == expected
