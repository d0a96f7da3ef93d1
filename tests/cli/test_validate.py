"""The validation from its command line. Its runs are virtual here, the real half with a timing that is 10 % slower."""

import json
import subprocess
import sys

import pytest

from emu.build import build, compose, plain
from emu.cli import validate
from emu.rehearse import rehearse
from emu.results.agreement import RunResults

COMMAND = (sys.executable, "-m", "emu", "validate")
SMALL = ["experiment=[]", "timing=constant", "workload=fixed", "workload.duration_s=3", "cluster.num_prompt=1"]
NOTHING_TO_COMPARE = "are INVALID, for the reasons below: the figures must not be used"
CONSTANT = [*SMALL, "runtime=virtual"]
SLOW = ["timing.prefill_s_per_token=1.1e-4", "timing.decode_step_s=0.033"]


@pytest.fixture
def tool(monkeypatch):

    def run(kind, overrides, run_dir):
        run_dir.mkdir(parents=True)
        changed = {"runtime=ray": ["runtime=virtual"], "execution=torch": SLOW}
        changed = [new for old in overrides for new in changed.get(old, [old])]
        rehearse(build(compose([*changed, "results.events=false", "results.report=false"])), run_dir, [], {})

    monkeypatch.setattr(validate, "run", run)
    monkeypatch.setattr(validate, "build", lambda config: None)
    return validate


def call(tool, monkeypatch, *arguments):
    return tool.main([*map(str, arguments)])


def test_emulated_machines_run_at_the_speed_that_the_real_ones_had(tool):
    figures = {"prefill": {"steps": 30, "speed": 0.91234}, "decode": {"steps": 0, "speed": None}}
    real = RunResults({"speed": figures}, {})
    host, constant = (plain(compose([f"timing={name}"]))["timing"] for name in ("host", "constant"))
    assert tool.speed_overrides(real, host) == ["timing.prefill_speed=0.9123"]
    assert tool.speed_overrides(real, constant) == []  # which has no such setting


@pytest.mark.parametrize(("option", "speeds"), [([], ["timing.decode_speed=0.5"]), (["--as-calibrated"], [])])
def test_of_each_repeat_the_emulated_half_takes_the_speed_of_the_real_one(tool, monkeypatch, tmp_path, capsys, option, speeds):
    monkeypatch.setattr(tool, "speed_overrides", lambda real, timing: ["timing.decode_speed=0.5"])
    ran = []
    run = tool.run
    monkeypatch.setattr(tool, "run", lambda kind, line, run_dir: (ran.append((kind, line[-1:])), run(kind, CONSTANT, run_dir)))
    assert call(tool, monkeypatch, *option, "--repeats", 2, "--runs", tmp_path / "v", *SMALL) == 0
    assert [kind for kind, _ in ran] == ["real", "emulated"] * 2
    assert [last for kind, last in ran if kind == "emulated"] == [speeds or ["execution=emulated"]] * 2
    assert capsys.readouterr().out.count("timing.decode_speed=0.5") == (2 if speeds else 0)


def test_both_kinds_are_run_in_turn_and_compared(tool, monkeypatch, tmp_path, capsys):
    directory = tmp_path / "validation"
    assert call(tool, monkeypatch, "--repeats", 3, "--runs", directory, *SMALL) == 0
    text = capsys.readouterr().out
    started = [line.split(": ")[0] for line in text.splitlines()[:6]]
    assert started == ["real", "emulated"] * 3
    written = json.loads((directory / "validate.json").read_text())
    tpot = written["tpot_s"]["mean"]
    assert tpot["real"] > tpot["emulated"] and tpot["covers"] is None
    assert tpot["error"] == pytest.approx(tpot["emulated"] / tpot["real"] - 1)
    assert 0.9 < written["ttft_s"]["correlation"] < 1
    assert [run["kind"] for run in written["runs"]] == ["real", "emulated"] * 3
    summary = json.loads((directory / "real-2" / "summary.json").read_text())
    assert tpot["real"] == pytest.approx(summary["tpot_s"]["mean"])  # of three equal runs
    num_requests = written["tpot_s"]["requests"]
    assert 0 < num_requests < 100 and f"TPOT p99 of {num_requests} requests  " in text
    [row] = [line.split() for line in text.splitlines() if line.startswith("TPOT mean")]
    assert row[2:5] == [f"{tpot['real'] * 1e3:,.1f}", f"{tpot['emulated'] * 1e3:,.1f}", f"{tpot['error']:+.1%}"]
    assert text.count("ILLUSTRATIVE") == 6 and str(directory / "real-0") in text


def test_settings_of_the_execution_are_for_the_real_half_only(tool):
    lines = tool.command_lines(["execution.num_threads=2", "seed=3", "timing=constant"])
    both = ["experiment=validate", "runtime=ray", "seed=3", "timing=constant"]
    assert lines == {
        "real": [*both, "execution=torch", "execution.num_threads=2"],
        "emulated": [*both, "execution=emulated"],
    }


def test_a_directory_with_something_in_it_is_left_alone(tool, monkeypatch, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert call(tool, monkeypatch, "--runs", tmp_path, *SMALL) == 2
    assert capsys.readouterr().err == f"emu validate: --runs {tmp_path}: expected a new or empty directory\n"


def test_a_run_that_fails_is_told_in_one_line(tmp_path):
    with pytest.raises(validate.RunFailed, match=r"^the real run in .*/real-0 failed: seed=-1: expected a whole number "):
        validate.run("real", ["seed=-1", "runtime=virtual"], tmp_path / "real-0")


@pytest.mark.parametrize(
    ("real", "emulated", "line", "is_comparable"),
    [
        (["VALID", "VALID"], ["ILLUSTRATIVE", "DEGRADED"], None, True),
        (["VALID", "INVALID"], ["VALID", "INVALID"], "2 of 4 runs are INVALID, for the reasons below", True),
        (["INVALID"] * 2, ["INVALID"] * 2, f"all 4 runs {NOTHING_TO_COMPARE}", False),
        (["INVALID"] * 2, ["VALID"] * 2, f"all 2 real runs {NOTHING_TO_COMPARE}", False),
    ],
)
def test_what_is_invalid_is_said_before_any_figure(tool, real, emulated, line, is_comparable):
    runs = [{"kind": "real", "verdict": verdict} for verdict in real]
    runs += [{"kind": "emulated", "verdict": verdict} for verdict in emulated]
    assert tool.judged(runs) == ([] if line is None else [line], is_comparable)


def invalid(results):
    results.summary["verdict"] = "INVALID"
    return results


def test_a_validation_whose_runs_are_all_invalid_fails(tool, monkeypatch, tmp_path, capsys):
    read = tool.read_results
    monkeypatch.setattr(tool, "read_results", lambda *where: invalid(read(*where)))
    assert call(tool, monkeypatch, "--repeats", 1, "--runs", tmp_path / "v", *SMALL) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == f"all 2 runs {NOTHING_TO_COMPARE}"
    assert lines[3].split()[:3] == ["ms", "real", "emulated"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--repeats", "0"], "--repeats 0: expected a whole number from 1"),
        (["--repeats", "two"], "argument --repeats: invalid int value: 'two'; see --help"),
        (["runtime=virtual"], "runtime=virtual: set here: execution=torch, then execution=emulated, both with runtime=ray"),
        (["execution=torch"], "execution=torch: set here: execution=torch, then execution=emulated, both with runtime=ray"),
        (["workload=burst"], "workload=burst: no such option; expected one of "),
    ],
)
def test_wrong_input_is_one_clear_line(arguments, line):
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"emu validate: {line}")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_real_and_emulated_machines_are_run_and_compared(tmp_path):
    pytest.importorskip("torch")
    directory, workload = tmp_path / "validation", ["workload.duration_s=4", "timing=constant"]
    once = [*COMMAND, "--repeats", "1", "--runs", directory, "experiment=validate_disaggregated", *workload]
    done = subprocess.run(once, capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    assert done.returncode == (NOTHING_TO_COMPARE in done.stdout)  # on a busy host
    written = json.loads((directory / "validate.json").read_text())
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        assert written[metric]["p50"]["real"] > 0 and written[metric]["p50"]["emulated"] > 0
    real, emulated = (json.loads((directory / name / "summary.json").read_text()) for name in ("real-0", "emulated-0"))
    assert set(real["shadow"]) == {"p0", "d0"} and "shadow" not in emulated
    assert real["requests"]["finished"] == emulated["requests"]["finished"] == real["requests"]["submitted"]
