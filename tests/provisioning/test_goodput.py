"""The goodput of a configuration, against a queue that is computed without the emulator."""

from dataclasses import replace
from functools import cache
from itertools import accumulate, pairwise

import numpy as np
import pytest

from emu.build import build, compose
from emu.config_error import ConfigError
from emu.core.setting import SettingError
from emu.provisioning.goodput import bisect, find_goodput
from emu.provisioning.probe import Demand, Probe, probe
from emu.workload.fixed import Fixed

# One machine that serves one-token answers one by one, 0.2 s each: a 2,000-token prompt fills a batch.
SERVICE_S, DURATION_S, LATENCY_S = 0.2, 60.0, 0.005
QUEUE = [
    "cluster=baseline_a100",
    "cluster.num_machines=1",
    "placement=round_robin",
    "batching=fcfs",
    "timing=constant",
    "workload=fixed",
    "workload.prompt_tokens=2000",
    "workload.output_tokens=1",
    f"workload.duration_s={DURATION_S}",
]


def queue_meets(rate_rps: float) -> bool:
    """Whether the M/D/1 queue keeps the limits of conf/slo/splitwise.yaml on E2E, TTFT here, by Lindley's recursion."""
    arrival_s = Fixed(2000, 1, rate_rps, DURATION_S, "poisson", 1).build(seed=0).arrival_s
    waits_s = accumulate(np.diff(arrival_s), lambda wait, gap: max(0.0, wait + SERVICE_S - gap), initial=0.0)
    slowdown = (np.array(list(waits_s)) + LATENCY_S + SERVICE_S) / SERVICE_S
    return bool((np.percentile(slowdown, [50, 90, 99]) <= [1.25, 1.5, 5]).all())


def test_it_is_that_of_the_queue():
    goodput = find_goodput(QUEUE, low_rps=0.2, high_rps=5, tolerance=0.01)
    assert all(run.met == queue_meets(run.rate_rps) for run in goodput.probes)
    assert goodput.at_limit.met and not goodput.beyond.met
    assert goodput.goodput_rps < goodput.next_rps <= 1.01 * goodput.goodput_rps
    assert goodput.beyond.reasons[0].startswith("e2e_p90")
    assert goodput.beyond.worst_margin < 0 <= goodput.at_limit.worst_margin
    assert [run.rate_rps for run in goodput.around(1)] == [goodput.goodput_rps, goodput.next_rps]


def test_by_a_timing_that_is_no_measurement_it_is_found_and_marked():
    found = probe(QUEUE, 0.2)
    assert (found.met, found.verdict) == (True, "ILLUSTRATIVE")
    assert found.illustrative == "timing=constant is not a measurement: latencies, service levels and cost are illustrative"
    assert probe([*QUEUE, "timing=profile"], 0.2).illustrative == ""


def test_it_does_where_it_does_with_every_seed_and_has_the_room():
    rate_rps = 0.9
    alone = [probe([*QUEUE, f"seed={seed}"], rate_rps) for seed in range(6)]
    met = [run.seed for run in alone if run.met]
    assert 0 < len(met) < 6  # or this test says nothing
    one_fails = next(run for run in alone if not run.met)
    both = probe(QUEUE, rate_rps, Demand(seeds=(met[0], one_fails.seed)))
    assert (both.met, both.seed, both.margins) == (False, one_fails.seed, one_fails.margins)
    assert both.reasons == tuple(f"seed {one_fails.seed}: {reason}" for reason in one_fails.reasons)
    tightest = min((alone[seed] for seed in met), key=lambda run: run.worst_margin)
    all_met = probe(QUEUE, rate_rps, Demand(seeds=tuple(met)))
    assert replace(all_met, wall_s=0) == replace(tightest, wall_s=0)
    room = tightest.worst_margin
    assert probe(QUEUE, rate_rps, Demand(tuple(met), room)).met
    missed = probe(QUEUE, rate_rps, Demand(tuple(met), room + 1e-6))
    assert not missed.met and " % of room < " in missed.reasons[0]


def test_p99_of_few_requests_is_marked():
    run = probe([*QUEUE, "seed=2"], 0.5)
    assert run.measured_requests < 100
    few = replace(run, margins={"ttft_p50": 0.5, "e2e_p99": 0.25})
    assert few.tightest == f"e2e_p99 of {run.measured_requests} requests +25 %"
    assert replace(few, measured_requests=100).tightest == "e2e_p99 +25 %"
    assert replace(few, margins={"e2e_p99": None}).tightest == ""


def test_a_guess_saves_runs_and_keeps_the_answer_within_the_tolerance():
    blind = find_goodput(QUEUE, low_rps=0.05, high_rps=5, tolerance=0.01)
    guided = find_goodput(QUEUE, low_rps=0.05, high_rps=5, tolerance=0.01, guess_rps=blind.goodput_rps)
    assert len(guided.probes) < len(blind.probes)
    assert guided.goodput_rps == pytest.approx(blind.goodput_rps, rel=0.01)


def test_the_same_search_finds_the_same():
    first, second = (find_goodput(QUEUE, 0.2, 5, 0.1).as_json() for _ in range(2))
    for found in (first, second):
        assert all(run.pop("wall_s") > 0 for run in found["probes"])
    assert first == second


def test_not_even_the_lowest_rate_may_do():
    goodput = find_goodput(QUEUE, low_rps=20, high_rps=40)
    assert (goodput.goodput_rps, goodput.next_rps, len(goodput.probes)) == (None, 20, 1)
    assert goodput.at_limit is None and goodput.around() == goodput.probes
    assert str(goodput).startswith("not even 20 requests/s: SATURATED, ")


def test_a_rate_that_leaves_requests_behind_does_not_do():
    """At 4 requests a machine-second of work, what is unfinished 1 s after the last arrival fails."""
    run = probe([*QUEUE, "metrics.max_drain_s=1"], 20)
    assert not run.met and run.num_failed > 0
    assert f"{run.num_failed} failed" in run.reasons


def test_the_highest_rate_may_do():
    goodput = find_goodput(QUEUE, low_rps=0.1, high_rps=0.3)
    assert (goodput.goodput_rps, goodput.next_rps) == (0.3, None)
    assert [run.rate_rps for run in goodput.probes] == [0.1, 0.2, 0.3]
    assert str(goodput) == "0.3 requests/s or more"


def test_a_probe_tells_what_the_machines_cost():
    run = probe(["cluster=splitwise_ha", "workload=splitwise_code", "workload.duration_s=5"], 10)
    assert (run.num_machines, run.dollars_per_hour, run.relative_power) == (6, 4 * 38.0 + 2 * 17.6, 4 * 1.75 + 2 * 1.0)
    assert run.mean_power_w == pytest.approx(6500 * run.relative_power)
    assert set(run.margins) == {f"{metric}_p{q}" for metric in ("ttft", "tbt", "e2e") for q in (50, 90, 99)}
    assert Probe.from_json(run.as_json()) == run


def test_a_run_writes_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    probe(QUEUE, 1)
    assert not list(tmp_path.iterdir())


class Limit:
    """Runs that meet everything up to a rate, and a list of the rates that were run."""

    def __init__(self, limit_rps: float) -> None:
        self.limit_rps, self.rates = limit_rps, []

    def __call__(self, rate_rps: float) -> Probe:
        self.rates.append(rate_rps)
        met = rate_rps <= self.limit_rps
        return replace(any_probe(), rate_rps=rate_rps, met=met)


@cache
def any_probe() -> Probe:
    return probe(QUEUE, 1)


@pytest.mark.parametrize("limit_rps", [1, 1.5, 2, 63.99, 64, 70.7, 99])
@pytest.mark.parametrize("guess_rps", [None, 1, 50, 1000])
def test_no_rate_is_run_twice_and_none_far_beyond_the_limit(limit_rps, guess_rps):
    run = Limit(limit_rps)
    goodput = bisect(run, 1, 100, 0.02, guess_rps)
    assert goodput.goodput_rps <= limit_rps < goodput.next_rps <= 1.02 * goodput.goodput_rps
    assert len(set(run.rates)) == len(run.rates)
    assert all(a < b for a, b in pairwise(one.rate_rps for one in goodput.probes))
    if guess_rps is None:
        assert max(run.rates) <= 2 * limit_rps


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((0, 10), "low_rps=0: expected a number > 0"),
        ((1, float("nan")), "high_rps=nan: expected a number > 0"),
        ((20, 10), "low_rps=20: expected at most high_rps=10"),
        ((1, 10, 0), "tolerance=0: expected a number from 0.0001 to 1"),
    ],
)
def test_a_bracket_that_cannot_be_is_told_in_one_line(arguments, line):
    with pytest.raises(SettingError) as error:
        bisect(Limit(5), *arguments, *([0.01] if len(arguments) == 2 else []))
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("runtime=ray", "runtime=ray: expected runtime=virtual, in which a search can run many times"),
        ("cluster.num_machines=0", "cluster.num_machines=0: expected a whole number from 1 to 10000"),
        ("slo.refrence=3", "slo.refrence: no such setting"),
    ],
)
def test_a_configuration_that_cannot_be_is_told_before_anything_runs(override, line):
    with pytest.raises(ConfigError) as error:
        find_goodput([*QUEUE, override], 1, 2, on_probe=lambda run: pytest.fail("it ran"))
    assert str(error.value).startswith(line)


def test_a_trace_has_no_rate_to_search(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_timestamp,prompt_size,token_size\n0,10,2\n1,10,2\n")
    overrides = ["workload=trace", f"workload.path={trace}", "workload.duration_s=inf"]
    build(compose(["runtime=virtual", *overrides]))
    with pytest.raises(ConfigError, match=r"^workload\.rate_rps: no such setting with this workload"):
        find_goodput(overrides, 1, 2)
