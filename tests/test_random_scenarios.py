"""Random clusters, loads, policies, deaths and lost KV caches. `simulate` checks each run: the invariants at every event and
at its end, that a second run leaves the same bytes, and that step-by-step execution decides and times everything the same."""

from collections import Counter
from itertools import accumulate
from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emu.core.batching.chunked_prefill import ChunkedPrefill
from emu.core.batching.fcfs import Fcfs
from emu.core.batching.mixed_continuous import MixedContinuous
from emu.core.placement.direct_decode import DirectDecode
from emu.core.placement.jsq import Jsq
from emu.core.placement.least_kv import LeastKV
from emu.core.placement.power_of_two import PowerOfTwo
from emu.core.placement.random import Random
from emu.core.placement.round_robin import RoundRobin
from emu.core.placement.splitwise import Splitwise
from emu.core.placement.token_jsq import TokenJsq
from emu.core.repurposing import NEVER, LoadDrift
from emu.core.timing.constant import ConstantTiming
from emu.results.columns import FAILED
from emu.runtime.virtual import VirtualRuntime
from emu.workload.prediction import NoisyPrediction
from tests.clusters import UNEVEN, Run, make_cluster, make_workload, simulate
from tests.losing import CAUSE, at_random, losing
from tests.stalling import shuffled

SETTINGS = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
# All times are multiples of 1/1024 s with this one, so that things often happen at once.
EVEN = ConstantTiming(prefill_s_per_token=1 / 1024, decode_step_s=1 / 32)

FOR_EVER_S = 1000.0
MACHINES = ["m0", "m0 m1", "p0 d0", "d0 p0", "p0 p1 d0", "p0 p1 p2 d0", "d0 d1 p0", "p0 p1 d0 d1", "p0 d0 m0"]

placements = st.one_of(
    st.builds(Random, st.integers(0, 9)),
    st.builds(RoundRobin),
    st.builds(Jsq),
    st.builds(TokenJsq),
    st.builds(PowerOfTwo, st.integers(0, 9)),
    st.builds(LeastKV),
    st.builds(DirectDecode, st.builds(TokenJsq), st.just(40)),
    st.builds(Splitwise, st.sampled_from([300, 8192]), st.sampled_from([0.3, 0.9])),
)
repurposings = st.one_of(
    st.just(NEVER),
    st.builds(
        lambda sustain_s, share: LoadDrift(0.1, sustain_s, 200, 100, share, share), st.just(0.3), st.sampled_from([0.01, 1])
    ),
)
batchings = st.one_of(
    st.builds(
        lambda policy, *limits: policy(*limits),
        st.sampled_from([Fcfs, MixedContinuous]),
        st.sampled_from([256, 2048]),
        st.sampled_from([0, 1, 4]),
    ),
    st.builds(ChunkedPrefill, st.sampled_from([3, 64, 256])),
)


@st.composite
def scenarios(draw) -> dict[str, Any]:
    """The arguments of a run for `simulate`."""
    names = draw(st.sampled_from(MACHINES))
    block_tokens = draw(st.sampled_from([4, 16]))
    cluster = make_cluster(
        names,
        placement=draw(placements),
        batching=draw(batchings),
        timing=draw(st.sampled_from([UNEVEN, EVEN])),
        latency_s=draw(st.sampled_from([0.0, 0.005, 1 / 128])),
        # Odd: half of them held at one machine leaves, at another, room for the same and one token more.
        num_blocks=draw(st.sampled_from([400, 1200, 16000])) // block_tokens | 1,
        block_tokens=block_tokens,
        watermark=draw(st.sampled_from([0.0, 0.01, 0.1])),
        max_held_fraction=draw(st.sampled_from([0.3, 0.5])),
        repurposing=draw(repurposings),
        report_period_s=draw(st.sampled_from([0.0, 0.0, 0.1, 1.0])),
        contention=draw(st.booleans()),
        layerwise_min_tokens=draw(st.sampled_from([1.0, 60.0, inf])),
        layers_per_piece=draw(st.sampled_from([1, 5])),
    )
    if share_lost := draw(st.sampled_from([0.0, 0.0, 0.2, 0.8])):
        cluster = losing(cluster, at_random(draw(st.integers(0, 2**16)), share_lost))
    num_requests = draw(st.integers(1, 25))
    arrivals_s = accumulate(draw(st.sampled_from([0.0, 1 / 64, 0.1, 0.37])) for _ in range(num_requests))
    requests = [(at_s, draw(st.integers(1, 200)), draw(st.integers(1, 80))) for at_s in arrivals_s]
    workload = NoisyPrediction(log_error=0.4).apply(make_workload(requests), seed=0)
    death_times_s = st.integers(1, 64).map(lambda n: n / 16)
    max_num_deaths = draw(st.sampled_from([0, 1, 1, 2]))
    deaths = draw(st.dictionaries(st.sampled_from(names.split()), death_times_s, max_size=max_num_deaths))
    max_drain_s = draw(st.sampled_from([FOR_EVER_S, FOR_EVER_S, 0.7]))
    return dict(cluster=cluster, requests=workload, deaths=deaths, max_drain_s=max_drain_s)


def incidents(run: Run) -> Counter[str]:
    """What a run had to cope with."""
    columns = run.columns
    moves = columns.pool_moves
    after_a_loss = np.char.find(columns.requeues.cause, CAUSE) >= 0
    failed = columns.requests.status == FAILED
    given_up = failed & np.array([CAUSE in cause for cause in columns.requests.causes])[columns.requests.cause]
    home = dict(zip(moves.machine[: run.num_machines].tolist(), moves.pool[: run.num_machines].tolist(), strict=True))
    return Counter(
        evicted=int(columns.requests.evictions.sum()),
        lost_by_death=int((~columns.requeues.evicted & ~after_a_loss).sum()),
        lost_in_transfer=int(after_a_loss.sum()),
        given_up=int(given_up.sum()),
        failed=int((failed & ~given_up).sum()),
        paused=int(columns.batches.num_paused.sum()),
        waited_for_blocks=int((columns.transfers.pull_s > columns.transfers.ready_s).sum()),
        repurposed=sum(pool in ("prompt", "token") and pool != home[machine] for _, machine, pool in run.pool_moves()),
        mixed_pool=sum(pool == "mixed" for _, _, pool in run.pool_moves()),
        stale=len(columns.drops),
        lost_in_vain=int((columns.drops.message == "KVLost").sum()),
    )


@pytest.mark.parametrize("streams", ["on time", "shuffled"])
def test_every_run_is_in_order(streams):
    met: Counter[str] = Counter()

    @SETTINGS
    @given(scenarios(), st.integers(0, 2**16))
    def is_in_order(scenario, seed):
        make_runtime = VirtualRuntime if streams == "on time" else shuffled(seed)
        run = simulate(**scenario, make_runtime=make_runtime)
        if scenario["max_drain_s"] == FOR_EVER_S:
            assert not any(cause.startswith("unfinished") for cause in run.columns.requests.causes)
        met.update(incidents(run))

    is_in_order()
    assert min(met.values()) > 0, met  # else the scenarios say nothing of it
