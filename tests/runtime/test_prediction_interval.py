"""The interval of each headline metric: by hand for one request, and that it holds what it must for any workload."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.build import build, compose
from emu.core.timing.biased import Biased
from emu.core.timing.constant import ConstantTiming
from emu.rehearse import write_results
from emu.results.metrics import latencies
from emu.results.recorder import Recorder
from emu.results.run_record import Fidelity, KVStats, RunRecord
from emu.results.settings import ResultsSettings
from emu.results.terminal import print_summary
from emu.runtime.prediction_interval import METRICS, STATISTICS, prediction_interval
from emu.runtime.run_config import RunConfig
from emu.runtime.virtual_loop import VirtualRuntime
from tests.clusters import PREFILL_S, STEP_S, exactly, make_cluster, make_workload

ON_TIME = Fidelity(np.zeros(1), np.zeros(1), 0.0, 0.0, 1.0)
REQUESTS = [(0.0, 100, 3)]
# By hand, without an error: two control messages of 5 ms, then a flow of 2 ms and 1 ms a token, lead to the second token.
TTFT_S, MOVE_S = 0.005 + 0.1, 0.005 + 0.005 + 0.002 + 0.1


class StatedTiming(ConstantTiming):
    """1 ms a prompt token, 30 ms a decode step, each to 10 %."""

    def __init__(self):
        super().__init__(PREFILL_S, STEP_S)

    def relative_error(self, prompt_tokens, num_seqs, context_tokens):
        return 0.1


def rehearsal_of(requests=REQUESTS, names="p0 d0", timing=None, **changes):
    cluster = make_cluster(names, timing=timing or StatedTiming())
    facts = dict(workload=make_workload(requests), seed=0, run_dir=Path(), transfer=None, max_drain_s=1000.0, log_events=False)
    return RunConfig(cluster, **(facts | changes))


def record_of(run_config, cluster=None, **changes):
    """The record of the rehearsal, run as `cluster` would."""
    recorder = Recorder(run_config.workload, len(run_config.cluster.machines))
    run = VirtualRuntime(cluster or run_config.cluster, run_config.workload, recorder, run_config.max_drain_s).run()
    facts = dict(runtime="virtual", seed=0, cluster=run_config.cluster, recorder=recorder, emulated_s=run.emulated_s)
    facts |= dict(num_events=run.num_events, kv=KVStats(), fidelity=None, interrupted="", wall_start=0.0)
    return RunRecord(**(facts | changes))


def slowed(cluster, factor):
    """The cluster of machines that take `factor` times as long as their timing says."""
    timing = Biased(StatedTiming(), (factor - 1) / 0.1)
    return replace(cluster, machines=tuple(replace(machine, timing=timing) for machine in cluster.machines))


def test_by_hand_for_one_request():
    run_config = rehearsal_of()
    interval = prediction_interval(run_config, record_of(run_config), 0.0)
    assert interval["contains_run"] is True
    assert interval["ttft_s"]["p99"] == {"low": exactly(0.095), "high": exactly(0.115)}
    gaps_s = {sign: [MOVE_S + (1 + sign) * STEP_S, (1 + sign) * STEP_S] for sign in (-0.1, 0.1)}
    assert interval["tbt_s"]["mean"] == {"low": exactly(sum(gaps_s[-0.1]) / 2), "high": exactly(sum(gaps_s[0.1]) / 2)}
    assert interval["tpot_s"]["mean"] == exactly(interval["tbt_s"]["mean"])  # of one request
    e2e_s = {"low": exactly(0.095 + sum(gaps_s[-0.1])), "high": exactly(0.115 + sum(gaps_s[0.1]))}
    assert interval["e2e_s"] == dict.fromkeys(STATISTICS, e2e_s)


def test_the_error_of_a_queue_grows_with_its_length():
    run_config = rehearsal_of([(0.0, 100, 1)] * 4, names="m0 m1")
    interval = prediction_interval(run_config, record_of(run_config), 0.0)
    for statistic, pass_s in (("p50", 0.15), ("mean", 0.15), ("p99", 0.2)):  # two of them wait for 100 ms, one on each machine
        low, high = 0.005 + 0.9 * pass_s, 0.005 + 1.1 * pass_s
        assert interval["ttft_s"][statistic] == {"low": exactly(low), "high": exactly(high)}


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 300), st.integers(1, 30)), min_size=1, max_size=12),
    st.sampled_from([None, 0.7, 1.0, 1.4]),
)
def test_it_holds_the_run_and_the_timing(requests, factor):
    run_config = rehearsal_of(sorted(requests))
    as_timed = record_of(run_config)
    record = as_timed if factor is None else record_of(run_config, slowed(run_config.cluster, factor), fidelity=ON_TIME)
    interval = prediction_interval(run_config, record, 0.0)
    for held in (latencies(of.recorder.columns(), 0.0) for of in (record, as_timed)):
        for metric in METRICS:
            for statistic in STATISTICS:
                value, ends = held[metric][statistic], interval[metric][statistic]
                assert ends is None if value is None else ends["low"] <= value <= ends["high"]


def test_a_run_on_the_wall_clock_is_beside_three_replays():
    run_config = rehearsal_of()
    record = record_of(run_config, slowed(run_config.cluster, 1.5), fidelity=ON_TIME)
    interval = prediction_interval(run_config, record, 0.0)
    assert interval["ttft_s"]["mean"] == {"low": exactly(0.095), "high": exactly(0.155)}  # what was measured is the high end


def test_where_all_machines_are_real_it_is_the_prediction_alone():
    run_config = rehearsal_of()
    record = record_of(run_config, slowed(run_config.cluster, 1.5), fidelity=ON_TIME, real=(0, 1))
    interval = prediction_interval(run_config, record, 0.0)
    assert interval["contains_run"] is False
    assert interval["ttft_s"]["mean"] == {"low": exactly(0.095), "high": exactly(0.115)}
    mixed = prediction_interval(run_config, replace(record, real=(0,)), 0.0)
    assert mixed["contains_run"] is True
    assert mixed["ttft_s"]["mean"] == {"low": exactly(0.095), "high": exactly(0.155)}


def test_a_real_answer_that_ended_early_is_replayed_as_short():
    asked = rehearsal_of([(0.0, 100, 50)])
    wrote = replace(asked, workload=make_workload([(0.0, 100, 3)]))
    recorder = record_of(wrote).recorder
    record = record_of(asked, recorder=recorder, fidelity=ON_TIME, real=(0, 1))
    e2e_s = prediction_interval(rehearsal_of(), record_of(rehearsal_of()), 0.0)["e2e_s"]
    assert prediction_interval(asked, record, 0.0)["e2e_s"] == e2e_s


def test_warm_up_is_left_out():
    run_config = rehearsal_of([(0.0, 100, 3), (5.0, 200, 3)])
    interval = prediction_interval(run_config, record_of(run_config), 1.0)
    assert interval["ttft_s"]["mean"] == {"low": exactly(0.005 + 0.18), "high": exactly(0.005 + 0.22)}


def test_nothing_is_replayed_without_a_stated_error_or_after_an_interruption():
    plain = rehearsal_of(timing=ConstantTiming(PREFILL_S, STEP_S))
    assert prediction_interval(plain, record_of(plain), 0.0) is None
    stated = rehearsal_of()
    assert prediction_interval(stated, record_of(stated, interrupted="Ctrl-C"), 0.0) is None


@pytest.fixture
def summary_with(tmp_path):
    """Run a small cluster with this timing, and write its results as the command line does: (summary, its file, report)."""

    def run(timing):
        overrides = ["runtime=virtual", "timing=constant", "workload=fixed", "workload.duration_s=2", "cluster.num_prompt=1"]
        plan = build(compose(overrides))
        cluster = plan.run_config.cluster
        machines = tuple(replace(machine, timing=timing) for machine in cluster.machines)
        run_config = replace(plan.run_config, cluster=replace(cluster, machines=machines))
        plan = replace(plan, run_config=run_config, results=ResultsSettings(False, True))
        record = plan.run(run_dir=tmp_path, log_events=False)
        summary = write_results(plan, record, tmp_path, [], {})
        return summary, json.loads((tmp_path / "summary.json").read_text()), (tmp_path / "report.html").read_text()

    return run


def printed(summary):
    file = io.StringIO()
    print_summary(summary, file)
    return file.getvalue()


def test_summary_terminal_and_report_show_it(summary_with):
    summary, written, report = summary_with(StatedTiming())
    assert written["interval"] == summary["interval"]
    assert list(written).index("interval") == list(written).index("decode_start_gap_s") + 1
    lines = printed(summary).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("TTFT"))
    for line, name, end in zip(lines[first + 1 : first + 3], ("from", "to"), ("low", "high"), strict=True):
        assert line.split() == [name, *(f"{summary['interval']['ttft_s'][key][end] * 1e3:,.1f}" for key in STATISTICS)]
    assert lines[first].split()[1] == f"{summary['ttft_s']['mean'] * 1e3:,.1f}"
    assert "\n  predicted from " in printed(summary | {"interval": summary["interval"] | {"contains_run": False}})
    assert "were every step off by the error that its timing states" in report


def test_without_a_stated_error_all_is_as_ever(summary_with):
    summary, written, report = summary_with(ConstantTiming(PREFILL_S, STEP_S))
    assert "interval" not in summary and "interval" not in written
    assert "  from" not in printed(summary)
    assert "were every step off" not in report
