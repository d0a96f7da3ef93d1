"""Traces through a whole run: what is said before it, what the summary has, what it costs."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from emu.__main__ import main
from emu.build import build, compose
from emu.config_error import ConfigError
from emu.rehearse import rehearse

CASES = Path(__file__).parent / "workload" / "cases"
BASE = ("runtime=virtual", "workload=trace", "timing=constant", "results.report=false", "results.events=false")


def run(tmp_path, path, *overrides):
    plan = build(compose([*BASE, f"workload.path={path}", *overrides]))
    return rehearse(plan, tmp_path, [], {}), plan


def test_the_summary_says_what_was_read(tmp_path):
    path = CASES / "23_epoch_timestamps" / "t.jsonl"
    summary, plan = run(tmp_path, path, "workload.duration_s=60", "workload.start_s=0")
    line = (
        "trace: 2 of 2 requests, 0 to 0.5 s of 0.5 s; columns not used: hash_ids; mooncake, times in ms; "
        "42.7 % of prompt tokens repeat a prefix"
    )
    assert plan.notes == (line,)
    assert summary["workload"] == {
        "name": "t.jsonl",
        "requests": 2,
        "prompt_tokens": {"mean": 1200, "p50": 1200, "p90": 1360, "p99": 1396, "max": 1400},
        "output_tokens": {"mean": 20, "p50": 20, "p90": 20, "p99": 20, "max": 20},
        "offered_rps": 4,
        "path": str(path),
        "format": "mooncake",
        "time_unit": "ms",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "start_s": 0,
        "duration_s": 60,
        "requests_in_file": 2,
        "file_span_s": 0.5,
        "unused_columns": ["hash_ids"],
        "skipped": 0,
        "reordered": 0,
        "repeated_prefix_share": pytest.approx(1024 / 2400),
        "line": line,
    }
    assert json.loads((tmp_path / "summary.json").read_text())["workload"] == summary["workload"]


def test_a_synthetic_load_has_no_file(tmp_path):
    plan = build(compose(["runtime=virtual", "workload=fixed", "workload.duration_s=2", "results.report=false"]))
    assert plan.notes == ()
    workload = rehearse(plan, tmp_path, [], {})["workload"]
    assert sorted(workload) == ["name", "offered_rps", "output_tokens", "prompt_tokens", "requests"]


def test_cost_counts_from_the_first_arrival_unless_the_start_was_chosen(tmp_path):
    path = CASES / "14_gap_then_load" / "t.csv"
    summary, _ = run(tmp_path, path)
    machines = sum(sum(count.values()) for count in summary["machines"].values())
    hours = summary["cost"]["machine_hours"]["total"]
    assert hours == pytest.approx(machines * (summary["emulated_s"] - 30) / 3600)
    assert summary["energy"]["kwh"]["total"] * 3.6e6 == pytest.approx(
        summary["energy"]["mean_power_w"] * (summary["emulated_s"] - 30)
    )
    chosen, _ = run(tmp_path, path, "workload.start_s=0")
    assert chosen["cost"]["machine_hours"]["total"] == pytest.approx(hours + machines * 30 / 3600)
    later, _ = run(tmp_path, path, "workload.start_s=29")
    assert later["cost"]["machine_hours"]["total"] == pytest.approx(hours + machines / 3600)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_dates_as_seconds_cost_no_millions(tmp_path, name):
    summary, _ = run(tmp_path, CASES / "23_epoch_timestamps" / name)
    assert summary["cost"]["dollars"]["total"] < 1


def test_a_long_trace_on_the_wall_clock_must_be_chosen():
    path = CASES / "35_unsorted" / "ten_minutes.csv"
    ray = ["runtime=ray", "workload=trace", f"workload.path={path}"]
    wall_time = "wall time: {} s until the last arrival (runtime.dilation={})"
    assert build(compose(ray)).notes[1] == wall_time.format("599", "1.0")
    assert build(compose([*ray, "runtime.dilation=auto"])).notes[1] == wall_time.format("at least 599", "auto")
    with pytest.raises(ConfigError) as error:
        build(compose([*ray, "runtime.dilation=2"]))
    assert str(error.value) == (
        f"workload.duration_s=inf: the arrivals of {path} take 20.0 min of wall time with runtime=ray; "
        "expected workload.duration_s=SECONDS, or runtime=virtual"
    )
    assert build(compose([*ray, "runtime.dilation=2", "workload.duration_s=600"])).notes[1] == wall_time.format("1,198", "2.0")
    assert build(compose([*ray, "runtime.dilation=2", "workload.rate_scale=2"])).notes[1] == wall_time.format("599", "2.0")


def test_what_was_read_is_printed_before_the_run(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["emu", *BASE, f"workload.path={CASES / '02_azure_2024' / 'lmm.csv'}"])
    with pytest.raises(SystemExit):
        main()
    first_line = capfd.readouterr().out.splitlines()[0]
    assert first_line == "trace: 2 of 2 requests, 0 to 1 s of 1 s; columns not used: NumImages; azure, times are dates"
