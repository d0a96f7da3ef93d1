"""The search tool from its command line: what it leaves, what it refuses, and that it goes on after a kill."""

import fcntl
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import psutil
import pytest

import emu.__main__
from emu.cli.provision import main
from emu.provisioning.probe import probe
from emu.results.report.quantity import significant

SMALL = ("workload=splitwise_code", "workload.duration_s=6", "model=bloom_176b")
LEAST = ("--minimize", "cost", "--rate", "10", "--designs", "splitwise_ha,baseline_h100", "--max-machines", "9", *SMALL)


def provision(*arguments, cwd):
    """Run the tool here, in `cwd` and one process: exit code, lines of stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        code = main(["--processes", "1", *map(str, arguments)])
    return code, out.getvalue().splitlines(), err.getvalue()


def directory_of(out):
    return Path(next(line for line in out if line.startswith("search: ")).removeprefix("search: ").split(",")[0])


def result(directory):
    """provision.json, less what depends on the host."""
    content = json.loads((directory / "provision.json").read_text())
    assert set(content.pop("host")) == {"num_runs", "num_found_at_start", "run_wall_s", "elapsed_s", "date"}
    return content


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("uninterrupted")
    code, out, err = provision(*LEAST, "--compare", "splitwise_ha=5P4T", cwd=cwd)
    assert (code, err) == (0, "")
    return directory_of(out), out


def test_a_line_a_run_a_table_and_a_page(uninterrupted):
    directory, out = uninterrupted
    answers = result(directory)["answers"]
    assert [(answer["design"], answer["compared"]) for answer in answers] == [
        ("splitwise_ha", False),
        ("splitwise_ha", True),
        ("baseline_h100", False),
    ]
    assert answers[0]["probe"]["met"] and answers[0]["probe"]["rate_rps"] == 10
    assert answers[0]["probe"]["dollars_per_hour"] < answers[1]["probe"]["dollars_per_hour"] == 5 * 38.0 + 4 * 17.6
    assert sum(answer["best"] for answer in answers) == 1
    num_runs = len(result(directory)["probes"])
    assert sum(" at 10 requests/s " in line for line in out) == num_runs
    assert any(line.startswith(f"{num_runs} runs, ") for line in out)
    [header] = [line for line in out if line.startswith("design ")]
    assert "  requests/s  offered/s  completed/s  tightest SLO" in header
    best = answers[0]["probe"]
    [row] = [line.split() for line in out if line.startswith(f"splitwise_ha   {answers[0]['size']} ")]
    assert row[6:9] == ["10", significant(best["offered_rps"]), significant(best["completed_rps"])]
    assert any(line.startswith("splitwise_ha   5P4T") and line.endswith("compared") for line in out)
    page = (directory / "provision.html").read_text()
    assert page.startswith("<!doctype html>") and "://" not in page.replace("http://www.w3.org", "")
    assert page.count('class="scroll heat"') == 2
    assert "Pareto front" in page and "compared (dashed): 5P4T" in page
    assert f"<td>10</td><td>{row[7]}</td><td>{row[8]}</td>" in page


def test_a_search_by_a_timing_that_is_no_measurement_says_so(tmp_path):
    size = ("--minimize", "machines", "--rate", "1", "--designs", "baseline_h100", "--max-machines", "2")
    code, out, err = provision(*size, "timing=constant", "workload=fixed", "workload.duration_s=3", cwd=tmp_path)
    assert (code, err) == (0, "")
    line = "timing=constant is not a measurement: latencies, service levels and cost are illustrative"
    assert out.count(f"ILLUSTRATIVE: {line}") == 1
    assert (directory_of(out) / "provision.html").read_text().count(line) == 1
    assert {probe["illustrative"] for probe in result(directory_of(out))["probes"]} == {line}


def test_what_was_found_is_run_by_emu_to_the_same_metrics(uninterrupted, tmp_path, monkeypatch, capfd):
    directory, out = uninterrupted
    command = shlex.split(next(line for line in out if line.startswith("run it: ")).removeprefix("run it: "))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [*command, "results.report=false"])
    with pytest.raises(SystemExit) as ended:
        emu.__main__.main()
    assert ended.value.code == 0
    [summary] = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/*/summary.json")]
    [best] = [answer["probe"] for answer in result(directory)["answers"] if answer["best"]]
    assert summary["slo"]["met"]
    assert summary["completed_rps"] == best["completed_rps"]
    assert summary["cost"]["dollars"]["per_request"] == best["dollars_per_request"]
    assert summary["energy"]["kwh"]["per_request"] == best["kwh_per_request"]
    assert summary["slo"]["limits"]["e2e"]["p99"]["margin"] == best["margins"]["e2e_p99"]


ENDLESS = """
    import sys
    from pathlib import Path
    import emu.provisioning.workers as workers
    from emu.cli import provision

    probe = workers.probe

    def probe_two(overrides, rate_rps, demand):
        '''The first two runs are as they are, the others do not end.'''
        [kept] = Path("runs/provision").glob("*/*")
        if (kept / "probes.jsonl").exists() and (kept / "probes.jsonl").read_bytes().count(b"\\n") >= 2:
            overrides = [*overrides, "workload.duration_s=20000"]
        return probe(overrides, rate_rps, demand)

    def main(arguments):
        workers.probe = probe_two
        sys.exit(provision.main(arguments))
"""


@pytest.mark.parametrize(("processes", "kill"), [(1, "Ctrl-C"), (2, "Ctrl-C"), (2, "SIGKILL")])
def test_killed_and_resumed_it_is_the_same_whatever_the_number_of_processes(uninterrupted, tmp_path, kill, processes):
    arguments = [*LEAST, "--compare", "splitwise_ha=5P4T"]
    (tmp_path / "endless.py").write_text(textwrap.dedent(ENDLESS))
    search = f"import endless; endless.main({['--processes', str(processes), *arguments]})"
    process = subprocess.Popen(
        [sys.executable, "-c", search],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=tmp_path,
    )
    head = [process.stdout.readline() for _ in range(4)]  # the directory, how to resume, and two runs
    workers = psutil.Process(process.pid).children(recursive=True)
    assert bool(workers) == (processes > 1)
    if kill == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)  # as a terminal: to all of them
    else:
        process.kill()
    _, err = process.communicate(timeout=60)  # returns when nobody holds the pipes any more: no worker either
    assert process.returncode == (130 if kill == "Ctrl-C" else -signal.SIGKILL)
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    directory = directory_of(head)
    kept = (directory / "probes.jsonl").read_bytes()
    if kill == "Ctrl-C":
        assert err.startswith(f"emu provision: interrupted; {len(kept.splitlines())} runs are kept; to resume: emu provision ")
        assert err.count("\n") == 1
    assert len(kept.splitlines()) >= 2
    with (directory / "probes.jsonl").open("ab") as file:
        file.write(b'{"design": "splitwise_ha", "si')  # as if it had been killed as it wrote
    code, out, err = provision(*arguments, "--resume", directory, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert (directory / "probes.jsonl").read_bytes().startswith(kept)
    assert f", {len(kept.splitlines())} runs there already" in out[0]
    assert result(directory) == result(uninterrupted[0])


def test_the_highest_throughput_within_a_cap(tmp_path):
    arguments = ("--maximize", "throughput", "--max-power", "52kW", "--designs", "splitwise_hh,baseline_a100")
    rates = ("--low-rps", "2", "--high-rps", "50", "--tolerance", "0.1")
    code, out, err = provision(*arguments, *rates, "--compare", "baseline_a100=7", *SMALL, cwd=tmp_path)
    assert (code, err) == (0, "")
    found = result(directory_of(out))
    assert found["question"]["caps"] == "8 x DGX-A100, 200 machines"  # 52 kW are those of 8 DGX-A100
    hh, a100, compared = found["answers"]
    assert hh["num_prompt"] + hh["num_token"] == 4 and a100["size"] == "8" and compared["size"] == "7"
    for answer in (hh, a100):
        probes = [one for one in found["probes"] if (one["design"], one["size"]) == (answer["design"], answer["size"])]
        above = [one["rate_rps"] for one in probes if one["rate_rps"] > answer["probe"]["rate_rps"]]
        assert answer["probe"]["met"] and min(above) <= 1.1 * answer["probe"]["rate_rps"]
    assert hh["best"] == (hh["probe"]["rate_rps"] >= a100["probe"]["rate_rps"]) != a100["best"]
    assert "Throughput against power" in (directory_of(out) / "provision.html").read_text()


def test_the_full_grid_finds_the_same_at_every_rate(tmp_path):
    arguments = ("--minimize", "power", "--rate", "6,9.5", "--designs", "splitwise_hh", "--max-machines", "6", *SMALL)
    searched, full = (provision(*arguments, *more, cwd=tmp_path) for more in ((), ("--full-grid",)))
    assert (searched[0], searched[2]) == (full[0], full[2]) == (0, "")
    found, expected = (result(directory_of(out)) for _, out, _ in (searched, full))
    assert found["answers"] == expected["answers"]
    assert [answer["rate_rps"] for answer in found["answers"]] == [6, 9.5]
    assert len(found["probes"]) < len(expected["probes"]) == 2 * (5 + 4 + 3 + 2 + 1)
    assert searched[1][-2].endswith("/conf experiment=found_splitwise_hh_9_5rps")
    assert "Throughput against cost" in (directory_of(full[1]) / "provision.html").read_text()


def test_where_nothing_will_do_it_says_so(tmp_path):
    arguments = ("--minimize", "machines", "--rate", "10", "--designs", "splitwise_aa", "--max-machines", "2")
    code, out, err = provision(*arguments, *SMALL, cwd=tmp_path)
    assert (code, err) == (1, "")
    assert any(line.startswith("splitwise_aa  none ") and line.endswith("no size within the caps carries it") for line in out)
    assert result(directory_of(out))["answers"][0]["size"] is None


def test_what_is_found_holds_for_every_seed_with_the_margin(tmp_path, monkeypatch):
    arguments = ("--minimize", "machines", "--rate", "10", "--designs", "splitwise_hh", "--max-machines", "9", *SMALL, "seed=4")
    one, all_three = (provision(*arguments, *more, cwd=tmp_path) for more in ((), ("--seeds", "3", "--margin", "0.05")))
    assert (one[0], one[2]) == (all_three[0], all_three[2]) == (0, "")
    question, [answer] = (result(directory_of(all_three[1]))[key] for key in ("question", "answers"))
    assert (question["seeds"], question["margin"]) == ([4, 5, 6], 0.05)
    monkeypatch.chdir(tmp_path)
    size = [f"cluster.num_prompt={answer['num_prompt']}", f"cluster.num_token={answer['num_token']}"]
    alone = [probe(["cluster=splitwise_hh", *SMALL, *size, f"seed={seed}"], 10) for seed in (4, 5, 6)]
    assert all(run.met and run.worst_margin >= 0.05 for run in alone)
    tightest = min(alone, key=lambda run: run.worst_margin)
    assert (answer["probe"]["seed"], answer["probe"]["margins"]) == (tightest.seed, tightest.margins)
    refused = [run for run in result(directory_of(all_three[1]))["probes"] if not run["met"]]
    assert refused and all(reason.startswith(f"seed {run['seed']}: ") for run in refused for reason in run["reasons"])
    found = (directory_of(all_three[1]) / "conf/experiment/found_splitwise_hh_10rps.yaml").read_text()
    assert f"\nseed: {tightest.seed}\n" in found
    page = (directory_of(all_three[1]) / "provision.html").read_text()
    assert "<dt>seeds</dt><dd>4 to 6</dd>" in page and "<dt>margin</dt><dd>5 %</dd>" in page
    assert "those of each of 3 seeds (4 to 6)" in page and "with 5 % of room" in page
    assert "those of one seed." in (directory_of(one[1]) / "provision.html").read_text()


# --- what is refused, before anything starts --------------------------------------------------------------------------


COST = ("--minimize", "cost", "--rate", "10")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "one of the arguments --minimize --maximize is required; see --help"),
        (("--minimize", "cost"), "--rate: expected with --minimize, and only there"),
        (("--maximize", "throughput", "--rate", "3"), "--rate 3: expected with --minimize, and only there"),
        (("--minimize", "cost", "--rate", "0"), "--rate 0: expected a number > 0, or several with commas"),
        (("--minimize", "cost", "--rate", "5,-1"), "--rate -1: expected a number > 0, or several with commas"),
        (("--minimize", "cost", "--rate", "fast"), "--rate fast: expected a number > 0, or several with commas"),
        ((*COST, "--designs", "splitwise_zz"), "cluster=splitwise_zz: no such option; expected one of baseline_a100, "),
        ((*COST, "--designs", "heterogeneous"), "--designs heterogeneous: its size is no number; expected a cluster with "),
        ((*COST, "--max-machines", "0"), "--max-machines 0: expected a number > 0"),
        ((*COST, "--max-dollars-per-hour", "-3"), "--max-dollars-per-hour -3: expected a number > 0"),
        ((*COST, "--max-power", "lots"), "--max-power lots: expected a number of DGX-A100s such as 70, or of kW such as 455kW"),
        (
            (*COST, "--designs", "splitwise_hh", "--max-dollars-per-hour", "70"),
            "splitwise_hh: no size is within the caps (70 $/h, 200 machines); the smallest, 1P1T, takes 2 machines, 76 $/h and "
            "3.5 times the power of a DGX-A100",
        ),
        (
            (*COST, "--designs", "splitwise_hh", "--max-power", "6.5kW"),
            "splitwise_hh: no size is within the caps (1 x DGX-A100, ",
        ),
        (
            (*COST, "--designs", "splitwise_hh", "--compare", "splitwise_hh=27"),
            "--compare splitwise_hh=27: expected a size such as",
        ),
        ((*COST, "--designs", "splitwise_hh", "--compare", "baseline=2"), "--compare baseline=2: expected DESIGN=SIZE, "),
        ((*COST, "--designs", "splitwise_hh", "--seeds", "0"), "--seeds=0: expected a whole number from 1 to 1000"),
        ((*COST, "--designs", "splitwise_hh", "--margin", "-0.1"), "--margin=-0.1: expected a number from 0 to 1"),
        ((*COST, "--processes", "0"), "--processes 0: expected a whole number from 1"),
        (("--maximize", "throughput", "--tolerance", "0"), "--tolerance=0.0: expected a number from 0.0001 to 1"),
        ((*COST, "cluster=splitwise_hh"), "cluster=splitwise_hh: a search finds this itself"),
        ((*COST, "workload=trace"), "workload."),
        (
            (*COST, "model=gpt"),
            "model=gpt: no such option; expected one of bloom_176b, checkpoint, llama2_70b, llama3_8b, llama_30m",
        ),
        ((*COST, "runtime=ray"), "runtime=ray: expected runtime=virtual"),
        (
            (*COST, "--designs", "splitwise_hh", "--resume", "nowhere"),
            "--resume {cwd}/nowhere: holds no search.json; expected the directory of a search",
        ),
    ],
)
def test_wrong_input_is_one_line_before_anything_starts(arguments, line, tmp_path):
    code, out, err = provision(*arguments, cwd=tmp_path)
    assert (code, out, err.count("\n")) == (2, [], 1)
    assert err.startswith("emu provision: " + line.format(cwd=tmp_path))
    assert not list(tmp_path.iterdir())


def test_another_search_is_not_resumed_nor_one_that_goes_on(uninterrupted, tmp_path):
    directory, _ = uninterrupted
    resumed = [*LEAST, "--compare", "splitwise_ha=5P4T", "--resume", directory]
    code, _, err = provision(*resumed, "seed=1", cwd=tmp_path)
    assert code == 2 and f"--resume {directory}: another search: its overrides was [" in err
    (tmp_path / "spoilt").mkdir()
    for name, text in (("search.json", None), ("probes.jsonl", '{"design": "x"}\n')):
        (tmp_path / "spoilt" / name).write_text(text or (directory / name).read_text())
    code, _, err = provision(*resumed[:-1], tmp_path / "spoilt", cwd=tmp_path)
    assert code == 2 and err.startswith(f"emu provision: {tmp_path}/spoilt/probes.jsonl, line 1: not a run of a search; ")
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, err = provision(*resumed, cwd=tmp_path)
    assert (code, err) == (2, f"emu provision: --resume {directory}: another process is searching there; wait for it\n")
