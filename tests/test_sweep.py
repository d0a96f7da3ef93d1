"""Sweeps: a directory with a table of all runs, which is the same however often the sweep was killed, and by whom run."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from joblib.externals.loky import get_reusable_executor
from pyarrow import parquet

import emu.__main__
import emu.cli.run
from emu.install import install_command

TINY = ("runtime=virtual", "workload.duration_s=2", "metrics.max_drain_s=60")
DESIGNS = "cluster=splitwise_hh,baseline_h100"
ON_ALL_CORES = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
SIX = (*TINY, "seed=range(6)")


@pytest.fixture
def sweep(tmp_path, monkeypatch, capfd):
    """Run `emu -m` in this process, into tmp_path/sweep; returns (exit code, stdout lines, stderr lines)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, directory="sweep"):
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        monkeypatch.setattr(sys, "argv", ["emu", "-m", *arguments, f"hydra.sweep.dir={directory}"])
        with pytest.raises(SystemExit) as ended:
            emu.__main__.main()
        out, err = capfd.readouterr()
        return ended.value.code, out.splitlines(), err.splitlines()

    yield run
    get_reusable_executor().shutdown(wait=True)  # joblib's workers print where this test's output was captured


def table(directory):
    return parquet.read_table(directory / "results.parquet").to_pylist()


def summaries(directory):
    """The summary of each run, less what depends on the host."""
    found = {}
    for path in directory.glob("*/summary.json"):
        found[path.parent.name] = json.loads(path.read_text())
        del found[path.parent.name]["host"]
    return found


# --- a sweep ----------------------------------------------------------------------------------------------------------


def test_runs_by_a_timing_that_is_no_measurement_are_marked(sweep):
    code, out, _ = sweep(*TINY, "timing=constant,profile", "seed=1,2", "require_valid=true")
    assert code == 1 and "results: 2 ILLUSTRATIVE, 2 VALID" in out
    line = "ILLUSTRATIVE: timing=constant is not a measurement: latencies, service levels and cost are illustrative"
    assert out.count(line) == 1


def test_a_row_a_run(sweep, tmp_path):
    code, out, err = sweep(*TINY, DESIGNS, "workload.rate_rps=4,8.5")
    directory = tmp_path / "sweep"
    assert (code, err) == (0, [])
    assert out[0] == f"sweep: 4 runs, 0 of them there already, in {directory}"
    assert out[1].endswith(f"emu -m {' '.join(TINY)} {DESIGNS} workload.rate_rps=4,8.5 hydra.sweep.dir={directory}")
    assert out[2].startswith("run 0: VALID cluster=splitwise_hh workload.rate_rps=4 TTFT p99 ")
    assert out[6] == "results: 4 VALID"
    names = {path.name for path in directory.iterdir() if not path.name.startswith(".")}
    assert names == {"0", "1", "2", "3", "results.parquet", "sweep.json"}
    assert {path.name for path in (directory / "3").iterdir()} == {".hydra", "requests.parquet", "summary.json"}
    assert (directory / "3/.hydra/overrides.yaml").read_text().splitlines()[-1] == "- workload.rate_rps=8.5"
    rows = table(directory)
    assert [(row["run"], row["cluster"], row["workload.rate_rps"]) for row in rows] == [
        (0, "splitwise_hh", 4.0),
        (1, "splitwise_hh", 8.5),
        (2, "baseline_h100", 4.0),
        (3, "baseline_h100", 8.5),
    ]
    assert list(rows[0])[:6] == ["run", "runtime", "workload.duration_s", "metrics.max_drain_s", "cluster", "workload.rate_rps"]
    for row in rows:
        summary = json.loads((directory / str(row["run"]) / "summary.json").read_text())
        assert (row["status"], row["error"]) == ("finished", "")
        assert (row["verdict"], row["saturated"]) == (summary["verdict"], summary["saturated"])
        assert row["ttft_s.p99"] == summary["ttft_s"]["p99"]
        assert row["slo.limits.ttft.p99.value"] == summary["slo"]["limits"]["ttft"]["p99"]["value"]
        assert not any(name.startswith("host") for name in row)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("workload.rate_rps=4,8,4.0",), "workload.rate_rps=4.0: run 2 is run 0 again, workload.rate_rps=4; "),
        (("seed=1,1",), f"{' '.join(TINY)} seed=1: run 1 is run 0 again, {' '.join(TINY)} seed=1; "),
    ],
)
def test_a_point_that_is_there_twice_is_refused_by_both_names(sweep, tmp_path, arguments, line):
    code, out, err = sweep(*TINY, *arguments)
    assert (code, out, err) == (2, [], [f"emu: {line}expected each point of a sweep once"])
    assert not (tmp_path / "sweep").exists()


def test_designs_are_compared_on_the_same_requests(sweep, tmp_path):
    assert sweep(*TINY, "cluster=splitwise_hh,splitwise_ha,baseline_a100", "seed=1,2")[0] == 0
    requests = {}
    for row in table(tmp_path / "sweep"):
        columns = parquet.read_table(
            tmp_path / "sweep" / str(row["run"]) / "requests.parquet", columns=["arrival_s", "prompt_tokens", "output_tokens"]
        )
        requests.setdefault(row["seed"], []).append((row["workload.digest"], columns))
    for same in requests.values():
        assert len(same) == 3
        assert all(digest == same[0][0] and columns.equals(same[0][1]) for digest, columns in same)
    assert requests[1][0][0] != requests[2][0][0]
    assert not requests[1][0][1].equals(requests[2][0][1])


def test_on_all_cores_the_table_is_the_same(sweep, tmp_path):
    assert sweep(*TINY, DESIGNS, "seed=1,2")[0] == 0
    code, out, err = sweep(*TINY, DESIGNS, "seed=1,2", *ON_ALL_CORES, directory="parallel")
    assert (code, err) == (0, [])
    assert sum(line.startswith("run ") for line in out) == 4
    assert (tmp_path / "sweep/results.parquet").read_bytes() == (tmp_path / "parallel/results.parquet").read_bytes()
    assert summaries(tmp_path / "sweep") == summaries(tmp_path / "parallel")


def test_across_ray_the_table_is_the_same(sweep, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="Hydra's Ray launcher is not installed")
    assert sweep(*TINY, "seed=1,2")[0] == 0
    assert sweep(*TINY, "seed=1,2", "hydra/launcher=ray", directory="ray")[0] == 0
    assert (tmp_path / "sweep/results.parquet").read_bytes() == (tmp_path / "ray/results.parquet").read_bytes()


# --- runs that fail ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("launcher", [(), ON_ALL_CORES], ids=["one by one", "on all cores"])
def test_a_failed_run_is_told_and_touches_no_other(sweep, tmp_path, launcher):
    directory = tmp_path / "sweep"
    assert sweep(*TINY, "seed=1,2,3")[0] == 0
    whole = (directory / "results.parquet").read_bytes()
    (directory / "1/summary.json").unlink()
    (directory / "1/summary.json").mkdir()  # in the way of the file
    code, out, err = sweep(*TINY, "seed=1,2,3", *launcher)
    assert code == 1
    assert out[0].startswith("sweep: 3 runs, 2 of them there already")
    assert len(err) == 1
    assert err[0].startswith(f"emu: run 1 failed: {directory}/1/summary.json: Is a directory; see ")
    assert "results: 1 FAILED, 2 VALID" in out
    rows = table(directory)
    assert [row["status"] for row in rows] == ["finished", "failed", "finished"]
    assert rows[1]["error"] == f"{directory}/1/summary.json: Is a directory"
    assert (rows[1]["seed"], rows[1]["verdict"], rows[1]["ttft_s.p50"]) == (2, None, None)
    (directory / "1/summary.json").rmdir()
    assert sweep(*TINY, "seed=1,2,3", *launcher)[0] == 0  # what failed is tried again
    assert (directory / "results.parquet").read_bytes() == whole


def test_an_unexpected_error_is_of_one_run_too(sweep, tmp_path, monkeypatch):
    rehearse = emu.cli.run.rehearse_in_sweep

    def sometimes(plan, run_dir, *arguments):
        if run_dir.name == "0":
            raise ZeroDivisionError("a bug")
        return rehearse(plan, run_dir, *arguments)

    monkeypatch.setattr(emu.cli.run, "rehearse_in_sweep", sometimes)
    code, _, err = sweep(*TINY, "seed=1,2")
    assert (code, [row["status"] for row in table(tmp_path / "sweep")]) == (1, ["failed", "finished"])
    assert err[0].startswith("emu: run 0 failed: ZeroDivisionError: a bug; see ")
    failure = json.loads((tmp_path / "sweep/0/failure.json").read_text())
    assert any("in sometimes" in line for line in failure["traceback"])


def test_an_interrupted_sweep_leaves_what_its_caller_started(sweep, monkeypatch):
    """A process that has started Ray, and then sweeps, keeps its cluster."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(emu.cli.run, "rehearse_in_sweep", interrupted)
    with subprocess.Popen(["sleep", "60"]) as earlier:
        code, _, err = sweep(*TINY, "seed=1,2")
        assert (code, err, earlier.poll()) == (130, ["emu: interrupted"], None)
        earlier.kill()


def test_a_killed_worker_fails_its_run_alone(tmp_path):
    """Also with joblib, which loses all its workers with one."""
    (tmp_path / "deadly.py").write_text(
        textwrap.dedent("""
        import os
        import signal
        from emu.rehearse import rehearse_in_sweep
        from emu.results.sweep_table import write_sweep_table
        from emu.sweeps.directory import opened
        from emu.sweeps.launch import launch
        from emu.sweeps.plan import plan_sweep

        def rehearse(plan, run_dir, *arguments):
            if run_dir.name == "2":
                os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory is short
            return rehearse_in_sweep(plan, run_dir, *arguments)

        def main(overrides):
            plan = plan_sweep(overrides)
            with opened(plan) as pending:
                launch(plan, pending, rehearse)
            write_sweep_table(plan.directory)
        """)
    )
    overrides = [*TINY, "seed=range(6)", *ON_ALL_CORES, f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    script = f"import deadly; deadly.main({overrides})"
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    assert [row["status"] for row in table(tmp_path / "sweep")] == ["finished"] * 2 + ["failed"] + ["finished"] * 3
    assert "emu: run 2 failed: its process ended before the run did, twice: " in ended.stderr


# --- killed and resumed -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("uninterrupted") / "sweep"
    command = [sys.executable, "-m", "emu", "-m", *SIX, f"hydra.sweep.dir={directory}"]
    subprocess.run(command, check=True, capture_output=True)
    return directory


ENDLESS = """
    import sys
    import emu.__main__
    import emu.cli.run
    from emu.build import build, compose

    rehearse_in_sweep = emu.cli.run.rehearse_in_sweep

    def rehearse(plan, run_dir, *arguments):
        if int(run_dir.name) > 1:
            plan = build(compose(["runtime=virtual", "workload.duration_s=20000", "cluster.num_prompt=1"]))
        return rehearse_in_sweep(plan, run_dir, *arguments)

    def main(arguments):
        emu.cli.run.rehearse_in_sweep = rehearse
        sys.argv = ["emu", *arguments]
        emu.__main__.main()
"""


def start(directory, launcher):
    """Start the sweep of six in a process group of its own, and wait until it is in the first run that is not 0 or 1. These
    run as they are, the others do not end."""
    (directory.parent / "endless.py").write_text(textwrap.dedent(ENDLESS))
    script = f"import endless; endless.main({['-m', *SIX, *launcher, f'hydra.sweep.dir={directory}']})"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=directory.parent,
    )
    while len(list(directory.glob("*/summary.json"))) < 2 or not list(directory.glob("*/.started")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


# Each signal where it meets most: SIGKILL leaves the workers behind, Ctrl-C reaches all processes at once.
@pytest.mark.parametrize(
    ("launcher", "kill"),
    [((), "SIGTERM"), ((), "Ctrl-C"), (ON_ALL_CORES, "SIGKILL"), (ON_ALL_CORES, "Ctrl-C")],
    ids=["one by one-SIGTERM", "one by one-Ctrl-C", "on all cores-SIGKILL", "on all cores-Ctrl-C"],
)
def test_killed_and_resumed_it_is_the_same(tmp_path, uninterrupted, kill, launcher, sweep):
    directory = tmp_path / "sweep"
    process = start(directory, launcher)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert bool(workers) == bool(launcher)
    if kill == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)  # as a terminal: to all of them
    else:
        process.send_signal(signal.Signals[kill])
    _, err = process.communicate(timeout=60)  # returns when nobody holds the pipes any more: no worker either
    assert process.returncode == {"SIGKILL": -9, "SIGTERM": 143}.get(kill, 130)
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    if kill == "Ctrl-C":
        assert err == "emu: interrupted\n"
    kept = {path: path.stat().st_mtime_ns for path in directory.glob("*/summary.json") if finished(path)}
    assert len(kept) == 2
    if kill != "SIGKILL":
        assert [row["status"] for row in table(directory)] == ["finished"] * 2 + ["missing"] * 4
    code, out, err = sweep(*SIX, *launcher)
    assert (code, err) == (0, [])
    assert out[0] == f"sweep: 6 runs, 2 of them there already, in {directory}"
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (directory / "results.parquet").read_bytes() == (uninterrupted / "results.parquet").read_bytes()
    assert summaries(directory) == summaries(uninterrupted)


def finished(path: Path) -> bool:
    return json.loads(path.read_text())["interrupted"] == ""


# --- what is refused, before anything starts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["workload.rate_rps=8,-1"], "workload.rate_rps=-1: expected a number > 0"),
        (["cluster=splitwise_hh,none"], "cluster=none: no such option; expected one of "),
        (["cluster=splitwise_hh,baseline_h100", "cluster.num_prompt=2"], "cluster.num_prompt: no such setting; cluster has "),
        (["runtime=virtual,ray", "hydra/launcher=joblib"], "runtime=ray: runs at the same time would take each other's cores "),
        (["workload.rate_rps=glob(*)"], "'workload.rate_rps=glob(*)' "),
        (["hydra/sweeper=best"], "hydra/sweeper=best: no such option; expected one of basic"),
        (["hydra/launcher=slurm"], "hydra/launcher=slurm: no such option; expected basic (one run after the other), "),
        (["hydra.launcher.n_jobs=2"], "hydra.launcher.n_jobs: no such setting; "),
        (["hydra.sweep.subdir=x"], "hydra.sweep.subdir=x: expected ${hydra.job.num}: the directory of a run has its number "),
        (["--config-dir=x", "seed=1"], "-m: cannot go with --config-*; expected hydra.searchpath=[DIRECTORY] "),
    ],
)
def test_a_sweep_that_cannot_be(sweep, tmp_path, arguments, line):
    code, out, err = sweep(*arguments, *([] if arguments[0].startswith("runtime") else TINY))
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith(f"emu: {line}")
    assert not (tmp_path / "sweep").exists()


def test_a_launcher_that_cannot_start_is_one_line(sweep):
    code, _, err = sweep(*TINY, "hydra/launcher=joblib", "hydra.launcher.n_jobs=0")
    assert (code, err) == (1, ["emu: hydra.launcher: ValueError: n_jobs == 0 in Parallel has no meaning"])


def test_without_the_ray_launcher_one_line_says_how_to_get_it(sweep, tmp_path):
    try:
        import hydra_plugins.hydra_ray_launcher  # noqa: F401
    except ImportError:
        code, out, err = sweep(*TINY, "hydra/launcher=ray")
        assert (code, out, len(err)) == (2, [], 1)
        assert err[0].startswith("emu: hydra/launcher=ray: needs Hydra's Ray launcher, which is not installed; ")
        assert err[0].endswith(install_command("ray-launcher"))
        assert not (tmp_path / "sweep").exists()
    else:
        pytest.skip("Hydra's Ray launcher is installed")


@pytest.mark.parametrize(
    ("second", "difference"),
    [
        (("seed=1,2,3",), "it has 2 runs, and 3 are asked for"),
        (("seed=1,3",), f"run 1 was {' '.join(TINY)} seed=2, and is {' '.join(TINY)} seed=3"),
    ],
)
def test_another_sweep_never_goes_into_the_same_directory(sweep, tmp_path, second, difference):
    assert sweep(*TINY, "seed=1,2")[0] == 0
    before = (tmp_path / "sweep/results.parquet").read_bytes()
    code, out, err = sweep(*TINY, *second)
    assert (code, out) == (2, [])
    assert err == [
        f"emu: hydra.sweep.dir={tmp_path / 'sweep'}: holds the runs of another sweep: {difference}; "
        "expected the command that it was started with, or another directory"
    ]
    assert (tmp_path / "sweep/results.parquet").read_bytes() == before


def test_another_trace_of_the_same_name_is_another_sweep(sweep, tmp_path):
    trace = tmp_path / "trace.csv"
    arguments = ("runtime=virtual", "workload=trace", f"workload.path={trace}", "placement=jsq,random")
    trace.write_text("arrival_timestamp,prompt_size,token_size\n0,5,5\n")
    assert sweep(*arguments)[0] == 0
    trace.write_text("arrival_timestamp,prompt_size,token_size\n0,5,6\n")
    code, _, err = sweep(*arguments)
    assert code == 2
    assert "another sweep: the requests (its trace?) of run 0 changed since; " in err[0]


def test_other_files_in_conf_or_code_are_another_sweep(sweep, tmp_path):
    assert sweep(*TINY, "seed=1,2")[0] == 0
    path = tmp_path / "sweep/sweep.json"
    asked = json.loads(path.read_text())
    path.write_text(json.dumps(asked | {"code": "0"}))
    assert "another sweep: emu itself, or numpy, changed since; " in sweep(*TINY, "seed=1,2")[2][0]
    asked["runs"][1]["config"] = "0"
    path.write_text(json.dumps(asked))
    assert "another sweep: the configuration (a file in conf/?) of run 1 changed since; " in sweep(*TINY, "seed=1,2")[2][0]


@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        (None, "its sweep.json does not list the runs of a sweep; expected an empty directory or that of a sweep"),
        ([["seed=1"]], "its sweep.json does not list the runs of a sweep; expected an empty directory or that of a sweep"),
        ({"0": {}}, "its sweep.json does not list the runs of a sweep; expected an empty directory or that of a sweep"),
        ([{"settings": {}, "workload": "0"}], "holds the runs of another sweep: run 0 was None, and is "),
        (
            [{"settings": {}, "workload": "0", "overrides": [["x"]]}],
            """holds the runs of another sweep: run 0 was '['"'"'x'"'"']', """,
        ),
    ],
)
def test_a_sweep_json_that_someone_else_wrote_is_one_line(sweep, tmp_path, runs, problem):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/sweep.json").write_text("[]" if runs is None else json.dumps({"runs": runs}))
    code, out, err = sweep(*TINY)
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith(f"emu: hydra.sweep.dir={tmp_path / 'sweep'}: {problem}")


@pytest.mark.parametrize("host", [[], {}, None])
def test_a_run_whose_summary_is_not_ours_is_run_again(sweep, tmp_path, host):
    assert sweep(*TINY, "seed=1,2")[0] == 0
    path = tmp_path / "sweep/0/summary.json"
    before = path.read_text()
    path.write_text(json.dumps({"interrupted": "", "host": host}))
    assert sweep(*TINY, "seed=1,2")[0] == 0
    assert json.loads(path.read_text())["requests"] == json.loads(before)["requests"]


def test_what_is_no_sweep_stays_as_it_is(sweep, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/mine.txt").write_text("mine")
    code, _, err = sweep(*TINY)
    assert code == 2
    assert err[0].endswith("holds mine.txt and no sweep.json; expected an empty directory or that of a sweep")
    assert (tmp_path / "sweep/mine.txt").read_text() == "mine"


def test_one_sweep_at_a_time(sweep, tmp_path):
    process = start(tmp_path / "sweep", ())
    try:
        process.send_signal(signal.SIGSTOP)
        code, _, err = sweep(*SIX)
    finally:
        process.kill()
        process.communicate()
    assert code == 2
    assert err == [f"emu: hydra.sweep.dir={tmp_path / 'sweep'}: another emu is sweeping there; wait for it"]
