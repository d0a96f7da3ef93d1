"""Slowdowns and the nine objectives, by hand and against definitions."""

from dataclasses import fields, replace

import numpy as np
import pytest
from facts import LEVELS, MODEL, SLO, TIMING, decode, prefill, recorded, run_cluster, summary_of

from emu.build import build, compose
from emu.config_error import ConfigError
from emu.core.facts import RequestEnded, RequestPlaced
from emu.core.setting import SettingError
from emu.core.timing.constant import ConstantTiming
from emu.core.timing.model import TimingError
from emu.results.slo import METRICS, STATISTICS, ServiceLevels
from emu.results.slowdown import lone_times_s, slowdowns

OBJECTIVES = [(metric, statistic) for metric in METRICS for statistic in STATISTICS]


class ByContext(ConstantTiming):
    """A decode step takes 30 ms and 10 us for each token of context."""

    def decode_s(self, num_seqs, context_tokens):
        return self.decode_step_s + 1e-5 * context_tokens


BY_CONTEXT = ByContext(prefill_s_per_token=0.001, decode_step_s=0.03)


def three_requests(more_facts=(), more_requests=()):
    """0 and 1: tokens at 0.3, 0.39 and 0.45. 2: one token, 0.05 s after its arrival at 1."""
    return recorded(
        [(0.0, 100, 3), (0.0, 200, 3), (1.0, 50, 1), *more_requests],
        [
            *((0.0, RequestPlaced(request, 1, 0, 1)) for request in range(3)),
            prefill(0, 0.1, 0.3, (0, 1, 100, 0), (1, 1, 200, 0)),
            decode(1, 0.36, [0.39, 0.45], (0, 1, 100, 1), (1, 1, 200, 1), finished=(0, 1), num_decodes=2),
            (0.45, RequestEnded(0, 1, "")),
            (0.45, RequestEnded(1, 1, "")),
            prefill(0, 1.0, 1.05, (2, 1, 50, 0), finished=(2,)),
            (1.05, RequestEnded(2, 1, "")),
            *more_facts,
        ],
    ).columns()


TTFT = (0.3 / 0.1, 0.3 / 0.2, 1.0)
TBT = (0.075 / 0.03, 0.075 / 0.03)
GAPS = (0.09 / 0.03, 0.09 / 0.03, 0.06 / 0.03, 0.06 / 0.03)
E2E = (0.45 / 0.16, 0.45 / 0.26, 1.0)


def about(values):
    return pytest.approx(values, rel=1e-9)


def test_slowdowns_by_hand():
    slow = slowdowns(three_requests(), np.array([True, True, True]), TIMING)
    assert slow.ttft.tolist() == about(list(TTFT))
    assert slow.tbt[:2].tolist() == about(list(TBT)) and np.isnan(slow.tbt[2])
    assert slow.e2e.tolist() == about(list(E2E))
    assert sorted(np.repeat(slow.gaps, slow.gap_weights).tolist()) == about(sorted(GAPS))


def test_a_gap_in_common_is_over_the_mean_of_its_requests_own():
    slow = slowdowns(three_requests(), np.array([True, True, True]), BY_CONTEXT)
    lone_s = [0.03 + 1e-5 * (prompt + 1.5) for prompt in (100, 200)]  # mean of the steps over prompt + 1 and prompt + 2 tokens
    assert slow.tbt[:2].tolist() == about([0.075 / lone_s[0], 0.075 / lone_s[1]])
    told = dict(zip(slow.gaps.tolist(), slow.gap_weights.tolist(), strict=True))
    expected = {0.06 / np.mean(lone_s): 2, 0.09 / lone_s[0]: 1, 0.09 / lone_s[1]: 1}
    assert sorted(told) == about(sorted(expected))
    assert [told[gap] for gap in sorted(told)] == [expected[gap] for gap in sorted(expected)]


def test_only_the_measured_requests_count():
    slow = slowdowns(three_requests(), np.array([False, True, False]), BY_CONTEXT)
    assert slow.ttft.tolist() == about([1.5])
    assert np.repeat(slow.gaps, slow.gap_weights).tolist() == about([0.06 / 0.032015, 0.09 / 0.032015])


@pytest.mark.parametrize("family", ["profile", "splitwise_sim", "constant"])
def test_lone_times_are_the_sum_of_their_steps(family):
    plan = build(compose(["runtime=virtual", f"timing={family}", "cluster=baseline_a100"]))
    timing = plan.service_levels.timing
    rng = np.random.default_rng(1)
    prompts, outputs = rng.integers(1, 9000, 50), rng.integers(1, 900, 50)
    outputs[7] = 1
    prefill_s, decode_s = lone_times_s(timing, prompts, outputs)
    for prompt, output, prefilled_s, decoded_s in zip(
        *map(np.ndarray.tolist, (prompts, outputs, prefill_s, decode_s)), strict=True
    ):
        assert prefilled_s == timing.prefill_s([prompt])
        steps_s = [timing.decode_s(1, prompt + step) for step in range(1, output)]
        assert decoded_s == pytest.approx(sum(steps_s), rel=1e-10, abs=0)
    assert decode_s[7] == 0.0


@pytest.mark.parametrize("family", ["profile", "splitwise_sim", "constant"])
def test_requests_alone_on_the_reference_machine_are_not_slowed_down(tmp_path, family):
    overrides = ["runtime=virtual", "runtime.control_latency_s=0", f"timing={family}", "model=bloom_176b"]
    load = ["workload=fixed", "workload.arrivals=constant", "workload.rate_rps=0.01", "workload.duration_s=300"]
    plan = build(compose([*overrides, *load, "cluster=baseline_a100", "cluster.num_machines=1"]))
    columns = plan.run(run_dir=tmp_path, log_events=False).recorder.columns()
    slow = slowdowns(columns, np.ones(len(columns.requests), bool), plan.service_levels.timing)
    for values in (slow.ttft, slow.tbt, slow.e2e):
        assert values.tolist() == about([1.0] * len(columns.requests))
    assert slow.gaps.mean() == pytest.approx(1.0, rel=0.01)


def limits(**changed):
    """Objectives that anything meets, but for those `changed`."""
    wide = {field.name: 1e9 for field in fields(SLO)[2:]}
    return ServiceLevels(replace(SLO, **(wide | changed)), TIMING)


@pytest.mark.parametrize(("metric", "statistic"), OBJECTIVES)
@pytest.mark.parametrize("tbt", ["mean", "gaps"])
def test_each_objective_can_be_missed_alone(metric, statistic, tbt):
    columns = three_requests()
    values = {"ttft": TTFT, "tbt": GAPS if tbt == "gaps" else TBT, "e2e": E2E}[metric]
    value = float(np.percentile(values, int(statistic[1:])))
    for factor, is_met in ((1 + 1e-6, True), (1 - 1e-6, False)):
        slo = limits(**{f"{metric}_{statistic}": value * factor, "tbt": tbt}).judge(columns, 0.0)
        assert slo["met"] is is_met
        told = slo["limits"][metric][statistic]
        assert told == {"limit": value * factor, "value": about(value), "margin": pytest.approx(factor - 1, rel=1e-3)}
        missed = [level for levels in slo["limits"].values() for level in levels.values() if level["margin"] < 0]
        assert len(missed) == (not is_met)


def test_the_definition_of_tbt_decides():
    columns = three_requests()
    by_mean, by_gap = (limits(tbt_p99=2.9, tbt=tbt).judge(columns, 0.0) for tbt in ("mean", "gaps"))
    assert (by_mean["met"], by_gap["met"]) == (True, False)
    assert by_mean["limits"]["tbt"] == by_mean["tbt_by_mean"] == by_gap["tbt_by_mean"]
    assert by_gap["limits"]["tbt"] == by_gap["tbt_by_every_gap"] == by_mean["tbt_by_every_gap"]
    for slo in (by_mean, by_gap):
        assert (slo["met_by_mean"], slo["met_by_every_gap"]) == (True, False)


def test_the_limits_are_those_of_the_paper():
    slo = build(compose(["runtime=virtual"])).service_levels.settings
    assert (slo.reference.name, slo.tbt) == ("dgx_a100", "mean")
    assert [slo.limit(*objective) for objective in OBJECTIVES] == [2, 3, 6, 1.25, 1.5, 5, 1.25, 1.5, 5]


def test_another_reference_machine():
    options = (["hardware@slo.reference=dgx_h100"], [])
    faster, paper = (build(compose(["runtime=virtual", *option])).service_levels for option in options)
    assert (faster.settings.reference.name, paper.settings.reference.name) == ("dgx_h100", "dgx_a100")
    assert faster.timing.prefill_s([1000]) < paper.timing.prefill_s([1000])


def test_goodput_counts_the_requests_within_all_three_p99_limits():
    columns = three_requests()
    for changed, num_within in (
        ({}, 3),
        ({"ttft_p99": 2}, 2),
        ({"e2e_p99": 1.5}, 1),
        ({"tbt_p99": 2}, 1),
        ({"ttft_p99": 0.5}, 0),
    ):
        slo = limits(**changed).judge(columns, 0.0)
        assert slo["share_within_p99"] == num_within / 3
        assert slo["goodput_rps"] == about(num_within / 1.05)  # from 0 to the last token at 1.05


@pytest.mark.parametrize("fact", [(2.0, RequestEnded(3, 1, "too long")), None])
def test_a_request_that_does_not_finish_misses_the_objectives(fact):
    facts = [(2.0, RequestPlaced(3, 1, 0, 1)), *([fact] if fact else [])]
    slo = limits().judge(three_requests(facts, [(2.0, 10, 10)]), 0.0)
    assert (slo["met"], slo["met_by_mean"], slo["met_by_every_gap"]) == (False, False, False)
    assert (slo["judged"], slo["measured"], slo["unfinished"]) == (4, 3, 1)
    assert slo["share_within_p99"] == 3 / 4
    assert slo["limits"]["ttft"]["p50"]["value"] == about(1.5)


def test_what_comes_before_the_warm_up_or_never_came_does_not_count():
    facts = [
        (0.0, RequestPlaced(0, 1, 0, 1)),
        (0.5, RequestEnded(0, 1, "too long")),
        (1.0, RequestPlaced(1, 1, 0, 1)),
        prefill(0, 1.0, 1.05, (1, 1, 50, 0), finished=(1,)),
        (1.05, RequestEnded(1, 1, "")),
    ]
    columns = recorded([(0.0, 10, 10), (1.0, 50, 1), (50.0, 10, 10)], facts).columns()
    assert (limits().judge(columns, 0.0)["met"], limits().judge(columns, 0.0)["judged"]) == (False, 2)
    slo = limits().judge(columns, 0.75)
    assert (slo["met"], slo["judged"], slo["measured"], slo["unfinished"]) == (True, 1, 1, 0)
    assert slo["limits"]["ttft"]["p99"]["value"] == about(1.0)
    assert slo["limits"]["tbt"]["p99"] == {"limit": 1e9, "value": None, "margin": None}  # a single token has no gap


def test_nothing_measured_is_nothing_met():
    slo = limits().judge(three_requests(), 10.0)
    assert (slo["met"], slo["judged"], slo["share_within_p99"], slo["goodput_rps"]) == (False, 0, None, None)
    assert slo["limits"]["e2e"]["p50"] == {"limit": 1e9, "value": None, "margin": None}


def test_where_all_fail_before_their_first_token_the_goodput_is_zero():
    facts = [
        fact
        for request in (0, 1)
        for fact in ((0.0, RequestPlaced(request, 1, 0, 1)), (0.5, RequestEnded(request, 1, "too long")))
    ]
    slo = limits().judge(recorded([(0.0, 10, 10), (0.0, 50, 1)], facts).columns(), 0.0)
    assert (slo["met"], slo["share_within_p99"], slo["goodput_rps"]) == (False, 0.0, 0.0)


def test_without_timing_of_the_reference_nothing_is_judged():
    class NoTiming:
        def for_machine(self, model, hardware):
            raise TimingError(f"no timing of {model.name} on {hardware.name}")

    levels = ServiceLevels.of(SLO, NoTiming(), MODEL)
    slo = levels.judge(three_requests(), 0.0)
    assert slo["reason"] == "no timing of tiny on box"
    assert (slo["met"], slo["met_by_mean"], slo["met_by_every_gap"]) == (None, None, None)
    assert (slo["share_within_p99"], slo["goodput_rps"]) == (None, None)
    assert set(slo) == set(LEVELS.judge(three_requests(), 0.0))


def test_a_run_is_built_without_timing_of_the_reference():
    plan = build(compose(["runtime=virtual", "~timing.fits.llama2_70b.dgx_a100"]))
    assert plan.service_levels.timing is None
    assert plan.service_levels.reason.startswith("no timing for model llama2_70b on hardware dgx_a100; there is: ")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["slo=ours"], "slo=ours: no such option; expected one of splitwise"),
        (["slo.tbt=p99"], "slo.tbt=p99: expected one of mean, gaps"),
        (["slo.ttft_p50=0"], "slo.ttft_p50=0: expected a number > 0"),
        (["slo.e2e_p99=soon"], "slo.e2e_p99=soon: expected a number"),
        (["slo.reference=3"], "slo.reference=3: expected an option of this group, or settings below it"),
        (["slo.ttft_p95=4"], "slo.ttft_p95: no such setting; slo has reference, tbt, ttft_p50, "),
    ],
)
def test_wrong_input_is_one_line(overrides, line):
    with pytest.raises(ConfigError) as caught:
        build(compose(["runtime=virtual", *overrides]))
    text = str(caught.value)
    assert text.startswith(line) if line.endswith(" ") else text == line


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(SettingError, match=r"^slo\.tbt_p90=-1: expected a number > 0$"):
        replace(SLO, tbt_p90=-1)


def test_the_summary_of_a_run_has_them():
    slo = summary_of(run_cluster(("p0", "d0"), [(0.1 * i, 20, 30) for i in range(20)]))["slo"]
    assert slo["limits"]["tbt"]["p50"]["value"] >= 1.0
    assert slo["measured"] == 20
