import json
import subprocess
import sys

COMMAND = (sys.executable, "-m", "emu", "report")


def report(*arguments):
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True)
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
    assert lines[0].rstrip().endswith(" reasons") and lines[3].rstrip().endswith(" the disk is full")
    assert "highest workload.rate_rps within all objectives: 4  hh" in lines
    assert "highest workload.rate_rps within all objectives: none  aa" in lines
    assert lines[-1] == f"page: {directory / 'report.html'}"
    (directory / "1/summary.json").write_text(json.dumps(summary("INVALID") | {"verdict_reasons": ["9 of 9 failed", "late"]}))
    (directory / "3").mkdir()
    (directory / "3/summary.json").write_text(json.dumps(summary()))
    (directory / "2/failure.json").unlink()
    (directory / "2/summary.json").write_text(json.dumps(summary()))
    lines = report(directory)[1]
    assert lines[2].rstrip().endswith(" 9 of 9 failed; late")
    assert "highest workload.rate_rps within all objectives: ≥ 8 (highest tried)  aa" in lines
    assert "<!doctype html>" in (directory / "report.html").read_text()
    assert report(directory, "--output", tmp_path / "page.html")[1][-1] == f"page: {tmp_path / 'page.html'}"


def test_p99_of_few_requests_is_marked(tmp_path):
    runs = [({"workload.rate_rps": rate}, summary() | {"measured_requests": number}) for rate, number in ((4, 29), (8, 400))]
    directory = sweep_of(tmp_path / "sweep", *runs)
    lines = report(directory)[1]
    assert lines[1].count("300.0 ms of 29 requests") == 3 and " of " not in lines[2]
    page = (directory / "report.html").read_text()
    assert page.count("300.0 ms<small>of 29 requests</small>") == 3
    assert page.count("Of as few as 29 requests.") == 3  # the charts of TTFT, TBT and E2E at p99


def test_wrong_input_is_one_line(tmp_path):
    code, _, err = report(tmp_path)
    assert (code, err) == (
        2,
        f"emu report: {tmp_path / 'sweep.json'}: no such sweep; expected the directory that emu -m printed\n",
    )
    directory = sweep_of(tmp_path / "sweep", ({"seed": 1}, summary()), ({"seed": 2}, summary()))
    code, _, err = report(directory, "--load", "cluster")
    assert (code, err) == (2, "emu report: --load=cluster: expected a number that varies: seed\n")


def test_a_sweep_file_whose_entries_are_no_runs_is_one_line(tmp_path):
    (tmp_path / "sweep.json").write_text('{"runs": [[1]]}')
    code, _, err = report(tmp_path)
    assert code == 2 and "no such sweep" in err and err.count("\n") == 1


def test_the_page_begins_with_the_runs_their_reasons_machines_and_cost(tmp_path):
    evil = "<script>alert('x')</script>"
    cost = {"dollars": {"total": 3.5, "per_million_output_tokens": 71.9}}
    machines = {"machines": {"prefill": {"dgx": 4}, "decode": {"dgx": 2}}}
    given = {"offered_rps": 8.25, "completed_rps": 4.5, "cost": cost, "model": "llama"} | machines
    runs = [
        ({"cluster": evil, "workload.rate_rps": 4}, summary() | given),
        ({"cluster": evil, "workload.rate_rps": 8}, summary("INVALID") | given | {"verdict_reasons": [evil, "second"]}),
        ({"cluster": evil, "workload.rate_rps": 9}, f"the disk is {evil}"),
    ]
    directory = sweep_of(tmp_path / "sweep", *runs)
    (directory / "0" / "report.html").touch()
    assert report(directory)[0] == 0
    page = (directory / "report.html").read_text()
    assert page.index("<h2>Runs</h2>") < page.index("<h2>What all runs share</h2>") < page.index("<h2>Latency</h2>")
    assert page.count("<script>") == 1 and "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;; second" in page
    assert '<a href="0/report.html">0</a>' in page and '<a href="1/summary.json">1</a>' in page
    assert '<a href="2/failure.json">2</a>' in page
    assert "4 prefill dgx, 2 decode dgx" in page and "<td>71.90</td>" in page and "<td>8.25</td><td>4.50</td>" in page
    assert "<dt>model</dt><dd>llama</dd>" in page
    assert "must not be compared" in page[page.index("<h3>TTFT p50</h3>") :].split("</figure>")[0]
