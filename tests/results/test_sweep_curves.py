"""Curves of a sweep hold what may be compared, and only that."""

import re

import numpy as np
import pytest

from emu.results.report.sweep import render_sweep
from emu.results.sweep_curves import SweepError, curves_of, illustrations, load_of, settings_of


def row(run, design, rate, seed=0, status="finished", verdict="VALID", saturated=False, met=True, p99=1.0):
    settings = {"run": run, "runtime": "virtual", "cluster": design, "workload.rate_rps": rate, "seed": seed}
    if status != "finished":
        return {**settings, "status": status, "error": "it <broke>"}
    figures = {"verdict": verdict, "saturated": saturated, "slo.met": met, "ttft_s.p99": p99, "completed_rps": rate}
    slo = {"slo.limits.ttft.p99.value": 3.0, "slo.limits.ttft.p99.limit": 6.0}
    return {**settings, "status": status, "error": "", **figures, **slo}


def test_one_curve_a_design_over_the_seeds():
    rows = [row(i, design, rate, seed, p99=rate + seed) for i, (design, rate, seed) in enumerate(
        (design, rate, seed) for design in ("hh", "aa") for rate in (8, 4) for seed in (0, 1)
    )]  # fmt: skip
    assert settings_of(rows) == ["cluster", "workload.rate_rps", "seed"]
    assert load_of(rows) == "workload.rate_rps"
    curves = curves_of(rows, "workload.rate_rps")
    assert [(curve.name, curve.loads) for curve in curves] == [("hh", (4.0, 8.0)), ("aa", (4.0, 8.0))]
    assert curves[0].values("ttft_s.p99").tolist() == [4.5, 8.5]


@pytest.mark.parametrize("bad", [{"status": "failed"}, {"status": "missing"}, {"verdict": "INVALID"}, {"saturated": True}])
def test_what_may_not_be_compared_never_wins(bad):
    rows = [row(0, "hh", 4), row(1, "hh", 8, **bad), row(2, "hh", 12)]
    [curve] = curves_of(rows, "workload.rate_rps")
    assert np.isnan(curve.values("ttft_s.p99")).tolist() == [False, True, False]
    assert (curve.highest_load_within_slos(), curve.highest_load_text) == (4, "4")
    assert curve.refused("ttft_s.p99") == ([] if "status" in bad else [(8.0, 1.0)])
    [none] = curves_of(rows[1:2], "workload.rate_rps")
    assert (none.highest_load_within_slos(), none.highest_load_text) == (None, "none")
    assert curves_of(rows[:1], "workload.rate_rps")[0].highest_load_text == "≥ 4 (highest tried)"


def test_degraded_runs_count_and_missed_objectives_do_not():
    [curve] = curves_of([row(0, "hh", 4, verdict="DEGRADED"), row(1, "hh", 8, met=False)], "workload.rate_rps")
    assert not np.isnan(curve.values("ttft_s.p99")).any()
    assert curve.highest_load_within_slos() == 4


def test_a_seed_that_is_bad_spoils_its_load():
    rows = [row(0, "hh", 4, seed=0), row(1, "hh", 4, seed=1, verdict="INVALID")]
    [curve] = curves_of(rows, "workload.rate_rps")
    assert np.isnan(curve.values("ttft_s.p99")).all()
    assert curve.highest_load_within_slos() is None


def test_the_load_is_a_number_that_varies():
    rows = [{**row(i, "hh", 4), "cluster.num_prompt": n, "cluster.num_token": n} for i, n in enumerate((2, 3))]
    names = ("run", "cluster.num_prompt", "cluster.num_token", "seed", "status", "error", "verdict", "saturated")
    rows = [{name: row[name] for name in names} for row in rows]
    assert load_of(rows) is None  # which of the two?
    assert load_of(rows, "cluster.num_token") == "cluster.num_token"
    assert [curve.name for curve in curves_of(rows, "cluster.num_token")] == ["cluster.num_prompt=2", "cluster.num_prompt=3"]
    with pytest.raises(
        SweepError, match=r"^--load=seed: expected a number that varies: cluster.num_prompt, cluster.num_token$"
    ):
        load_of(rows, "seed")


def test_the_page_shows_every_run_and_needs_nothing_else():
    rows = [row(0, "hh", 4), row(1, "hh", 8, saturated=True), row(2, "aa", 4, status="failed"), row(3, "aa", 8, met=False)]
    page = render_sweep(rows, "A <sweep>")
    for text in (
        "A &lt;sweep&gt;",
        "SATURATED",
        "FAILED",
        "it &lt;broke&gt;",
        'data-name="hh"',
        "objective: 6",
        "TTFT slowdown p99",
    ):
        assert text in page
    assert "://" not in page.replace("http://www.w3.org", "")
    assert page.count('<span class="best">') == 1
    assert page.index('<span class="best">4</span>') < page.index(">aa</th>")


def test_a_sweep_without_a_load_is_a_table():
    page = render_sweep([row(0, "hh", 4), row(1, "aa", 4)], "Designs")
    assert "there is nothing to draw against" in page
    assert page.count("VALID</span>") == 2


def illustrative_row(*arguments, **figures):
    return row(*arguments, **{"verdict": "ILLUSTRATIVE"} | figures) | {"timing.illustrative": "timing=constant is none"}


def test_illustrative_runs_are_compared_among_themselves():
    rows = [row(0, "hh", 4), illustrative_row(1, "aa", 4), illustrative_row(2, "aa", 8, verdict="DEGRADED")]
    curves = curves_of(rows, "workload.rate_rps")
    assert [(curve.name, curve.is_illustrative) for curve in curves] == [("hh", False), ("aa (illustrative)", True)]
    assert [curve.highest_load_within_slos() for curve in curves] == [4, 8]
    assert illustrations(rows) == ["timing=constant is none"]
    page = render_sweep(rows, "Sweep")
    best = re.findall(r'<span class="best">([^<]+)</span>', page)
    assert best == ["≥ 4 (highest tried)", "≥ 8 (highest tried)"]  # each is the best of its kind
    assert page.count("timing=constant is none") == 1 and "ILLUSTRATIVE</span>" in page


def test_one_curve_never_joins_what_is_illustrative_and_what_is_not():
    rows = [row(0, "hh", 4), illustrative_row(1, "hh", 8), row(2, "hh", 12)]
    assert [(curve.name, curve.loads) for curve in curves_of(rows, "workload.rate_rps")] == [
        ("all runs", (4, 12)),
        ("all runs (illustrative)", (8,)),
    ]


def test_a_run_that_failed_is_of_the_curve_of_its_design():
    rows = [illustrative_row(0, "hh", 4), row(1, "hh", 8, status="failed"), row(2, "aa", 4)]
    assert [(curve.name, curve.loads) for curve in curves_of(rows, "workload.rate_rps")] == [
        ("hh (illustrative)", (4, 8)),
        ("aa", (4,)),
    ]
