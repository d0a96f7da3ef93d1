import json
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "sweep_report.py"


def report(*arguments):
    done = subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines(), done.stderr


def sweep_of(directory, *runs):
    """A sweep directory: each run its settings, and its summary, its failure (a text) or None."""
    directory.mkdir()
    described = [{"overrides": [], "settings": settings, "config": "", "workload": ""} for settings, _ in runs]
    (directory / "sweep.json").write_text(json.dumps({"runs": described}))
    for number, (_, result) in enumerate(runs):
        if result is None:
            continue
        run_dir = directory / str(number)
        run_dir.mkdir()
        name, content = ("failure.json", {"error": result}) if isinstance(result, str) else ("summary.json", result)
        (run_dir / name).write_text(json.dumps(content))
    return directory


def summary(verdict="VALID", saturated=False, met=True):
    latency = {"p50": 0.1, "p90": 0.2, "p99": 0.3}
    return {
        "verdict": verdict,
        "verdict_reasons": [],
        "saturated": saturated,
        "interrupted": "",
        "ttft_s": latency,
        "tbt_s": latency,
        "e2e_s": latency,
        "offered_rps": 5.0,
        "completed_rps": 4.0,
        "slo": {"met": met},
        "host": {"wall_s": 1.0},
    }


def test_a_line_a_run_and_a_page(tmp_path):
    runs = [
        ({"cluster": "hh", "workload.rate_rps": 4}, summary()),
        ({"cluster": "hh", "workload.rate_rps": 8}, summary(saturated=True)),
        ({"cluster": "aa", "workload.rate_rps": 4}, "the disk is full"),
        ({"cluster": "aa", "workload.rate_rps": 8}, None),
    ]
    directory = sweep_of(tmp_path / "sweep", *runs)
    code, lines, err = report(directory)
    assert (code, err) == (0, "")
    assert lines[0].split()[:4] == ["run", "cluster", "workload.rate_rps", "outcome"]
    assert [line.split()[:4] for line in lines[1:5]] == [
        ["0", "hh", "4", "VALID"],
        ["1", "hh", "8", "SATURATED"],
        ["2", "aa", "4", "FAILED"],
        ["3", "aa", "8", "MISSING"],
    ]
    assert "run 2 failed: the disk is full" in lines
    assert "highest workload.rate_rps within all objectives: 4  hh" in lines
    assert "highest workload.rate_rps within all objectives: none  aa" in lines
    assert lines[-1] == f"page: {directory / 'report.html'}"
    assert "<!doctype html>" in (directory / "report.html").read_text()
    assert report(directory, "--output", tmp_path / "page.html")[1][-1] == f"page: {tmp_path / 'page.html'}"


def test_wrong_input_is_one_line(tmp_path):
    code, _, err = report(tmp_path)
    assert (code, err) == (
        2,
        f"sweep_report: {tmp_path / 'sweep.json'}: no such sweep; expected the directory that emu -m printed\n",
    )
    directory = sweep_of(tmp_path / "sweep", ({"seed": 1}, summary()), ({"seed": 2}, summary()))
    code, _, err = report(directory, "--load", "cluster")
    assert (code, err) == (2, "sweep_report: --load=cluster: expected a number that varies: seed\n")


def test_a_sweep_file_whose_entries_are_no_runs_is_one_line(tmp_path):
    (tmp_path / "sweep.json").write_text('{"runs": [[1]]}')
    code, _, err = report(tmp_path)
    assert code == 2 and "no such sweep" in err and err.count("\n") == 1
