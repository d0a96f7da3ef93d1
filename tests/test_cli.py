"""The command line from outside: what it prints, what it leaves, how it ends."""

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import pytest

from emu.__main__ import SUBCOMMANDS, main
from emu.files import locked
from emu.progress import ProgressDisplay
from emu.runtime.errors import NotStartedError
from emu.runtime.virtual import Virtual

FILES = ["events.msgpack", "report.html", "requests.parquet", "summary.json"]
SHORT = ("runtime=virtual", "workload.duration_s=2")


@pytest.fixture
def emu(tmp_path, monkeypatch, capfd):
    """Run the command line in this process, in an empty directory; returns (exit code, stdout lines, stderr lines)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        monkeypatch.setattr(sys, "argv", ["emu", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return ended.value.code, out.splitlines(), err.splitlines()

    return run


def run_dir_of(out):
    assert out[-1].startswith("run: ")
    return Path(out[-1].removeprefix("run: "))


def summary_of(run_dir):
    return json.loads((run_dir / "summary.json").read_text())


# --- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_files_where_it_says(emu, tmp_path):
    code, out, err = emu(*SHORT, "results.events=true")
    run_dir = run_dir_of(out)
    assert (code, err) == (0, [])
    assert run_dir.parent.parent == tmp_path / "runs"
    assert sorted(path.name for path in run_dir.iterdir()) == [".hydra", ".lock", *FILES]
    assert sorted(path.name for path in (run_dir / ".hydra").iterdir()) == ["config.yaml", "hydra.yaml", "overrides.yaml"]
    host = summary_of(run_dir)["host"]
    assert host["overrides"] == [*SHORT, "results.events=true"]
    assert host["run_dir"] == str(run_dir)
    assert host["wall_s"] > 0
    assert "<!doctype html>" in (run_dir / "report.html").read_text()


CONSTANT = "timing=constant is not a measurement: latencies, service levels and cost are illustrative"


@pytest.mark.parametrize(
    ("timing", "verdict", "lines"), [("profile", "VALID", []), ("constant", "ILLUSTRATIVE", [f"  {CONSTANT}"])]
)
def test_a_run_whose_timing_is_no_measurement_says_so_and_is_not_valid(emu, timing, verdict, lines):
    code, out, _ = emu(*SHORT, f"timing={timing}", "require_valid=true")
    assert (code, out[0]) == (int(verdict != "VALID"), verdict)
    assert [line for line in out if "illustrative" in line] == lines == out[1 : 1 + len(lines)]
    page = (run_dir_of(out) / "report.html").read_text()
    assert f"<h2>{verdict}</h2>" in page and (CONSTANT in page) == bool(lines)
    assert emu(*SHORT, f"timing={timing}")[0] == 0


def test_the_same_seed_leaves_the_same_bytes(emu):
    first, second, other = (run_dir_of(emu(*SHORT, "results.events=true", f"seed={seed}")[1]) for seed in (1, 1, 2))
    assert first != second
    for name in ("requests.parquet", "events.msgpack"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
        assert (first / name).read_bytes() != (other / name).read_bytes()
    texts = []
    for run_dir in (first, second):
        summary = summary_of(run_dir)
        del summary["host"]
        texts.append(json.dumps(summary))
    assert texts[0] == texts[1]


def test_results_are_switched_off(emu):
    _, out, _ = emu(*SHORT, "results.report=false")
    assert sorted(path.name for path in run_dir_of(out).iterdir()) == [".hydra", ".lock", "requests.parquet", "summary.json"]


def test_a_sweep_is_a_run_for_each_value(emu, tmp_path):
    code, out, err = emu("--multirun", *SHORT, "seed=3,4")
    sweep_dir = Path(out[0].rpartition(", in ")[2])
    assert (code, err) == (0, [])
    assert sweep_dir.parents[1] == tmp_path / "runs/sweeps"
    assert [summary_of(sweep_dir / name)["seed"] for name in ("0", "1")] == [3, 4]


def test_a_run_that_has_to_be_valid_fails_otherwise(emu):
    beyond_the_profile = (*SHORT, "workload=fixed", "workload.prompt_tokens=20000", "require_valid=true")
    code, out, err = emu(*beyond_the_profile)
    assert (code, err) == (1, [])
    assert summary_of(run_dir_of(out))["verdict"] == "INVALID"
    assert emu(*beyond_the_profile, "require_valid=false")[0] == 0
    assert emu(*SHORT, "require_valid=true")[0] == 0


def test_a_death_on_purpose(emu):
    code, out, _ = emu(*SHORT, "faults=[{machine: p1, at_s: 1}]")
    assert code == 0
    assert summary_of(run_dir_of(out))["machines_died"] == ["p1"]


def test_help_lists_the_groups(emu):
    code, out, _ = emu("--help")
    assert code == 0
    assert (
        "cluster: baseline_a100, baseline_h100, heterogeneous, splitwise_aa, splitwise_ha, splitwise_hh, splitwise_hhcap" in out
    )
    assert len(out) < 30


# --- wrong input and failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["workload.rate_rps=-1"],
        ["--multirun", "workload.rate_rps=8,-1"],
    ],
)
def test_wrong_input_starts_nothing(emu, tmp_path, arguments):
    assert emu(*arguments, "runtime=virtual") == (2, [], ["emu: workload.rate_rps=-1: expected a number > 0"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--experimental-rerun", "job.pickle"], "--experimental-rerun: unpickles a file, which runs what is in it; expected "),
        (["--config-name", "mine"], "--config-name, --config-path: there is one configuration; expected --config-dir "),
        (["--config-path", "."], "--config-name, --config-path: there is one configuration; expected --config-dir "),
        (["--config-dir", "none"], "--config-dir none: no such folder; expected one with folders of groups"),
        (["--cfg", "job", "+hydra.callbacks.x={_target_: os.system}"], "hydra.callbacks.x._target_=os.system: expected what "),
        (["--help", "hydra.searchpath=[pkg://antigravity]"], "hydra.searchpath=pkg://antigravity: expected a folder, or "),
    ],
)
def test_flags_that_would_run_something_are_refused(emu, tmp_path, flags, line):
    code, out, [error] = emu(*flags)
    assert (code, out) == (2, [])
    assert error.startswith(f"emu: {line}")
    assert list(tmp_path.iterdir()) == []


def test_an_experiment_in_a_directory_of_ones_own(emu, tmp_path):
    (tmp_path / "it's mine/experiment").mkdir(parents=True)
    (tmp_path / "it's mine/experiment/short.yaml").write_text("# @package _global_\nworkload: {duration_s: 2}\n")
    code, out, err = emu("--config-dir", "it's mine", "experiment=short", *SHORT[::2])
    assert (code, err) == (0, [])
    assert summary_of(run_dir_of(out))["requests"]["submitted"] < 40
    assert emu("--config-dir", "it's mine", "experiment=short", "seed=-1")[2] == [
        "emu: seed=-1: expected a whole number from 0 to 2147483647"
    ]


def test_the_version_is_that_of_emu(emu):
    assert emu("--version") == (0, [f"emu {metadata.version('emu-serving')} (plain Python, not compiled)"], [])


@pytest.mark.parametrize(("arguments", "problem"), [(["--fast"], "--fast"), (["seed=1", "-m", "seed=2"], "seed=2")])
def test_wrong_arguments_are_one_line(emu, arguments, problem):
    line = f"emu: unrecognized arguments: {problem}; expected emu [FLAGS] [KEY=VALUE ...], flags first; see emu --help"
    assert emu(*arguments) == (2, [], [line])


def test_a_run_that_cannot_start_leaves_nothing(emu, tmp_path, monkeypatch):
    def run(runtime, run_config):
        (run_config.run_dir / "events.msgpack").touch()
        raise NotStartedError("an actor did not come up")

    monkeypatch.setattr(Virtual, "run", run)
    assert emu(*SHORT, "hydra.run.dir=run") == (1, [], ["emu: an actor did not come up"])
    assert list(tmp_path.iterdir()) == []


def test_a_death_without_effect_is_told(emu):
    code, out, _ = emu(*SHORT, "faults=[{machine: p1, at_s: 1}, {machine: p1, at_s: 1.5}, {machine: d0, at_s: 900}]")
    summary = summary_of(run_dir_of(out))
    assert (code, summary["machines_died"]) == (0, ["p1"])
    p1, d0 = summary["faults_without_effect"]
    assert p1 == {"machine": "p1", "at_s": 1.5, "why": "it was dead from 1.005 s on"}
    assert (d0["machine"], d0["at_s"], d0["why"]) == ("d0", 900, f"the run ended at {summary['emulated_s']:.4g} s")
    assert [line for line in out if line.startswith("no effect")] == [
        "no effect the death of p1 at 1.5 s: it was dead from 1.005 s on",
        f"no effect the death of d0 at 900 s: {d0['why']}",
    ]


def test_paths_of_any_language_and_at_home(emu, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "Zuhause"))
    path = tmp_path / "Zuhause/Überlast.csv"
    path.parent.mkdir()
    path.write_text("arrival_timestamp,prompt_size,token_size\n0,5,5\n")
    code, out, err = emu("runtime=virtual", "workload=trace", "workload.path=~/Überlast.csv", "hydra.run.dir=~/Läufe/1")
    assert (code, err) == (0, [])
    assert run_dir_of(out) == tmp_path / "Zuhause/Läufe/1"


@pytest.mark.parametrize(
    "arguments", [["hydra.run.dir=${oc.env:SECRET}"], ["--cfg", "job", "--resolve", "seed=${oc.env:SECRET}"]]
)
def test_the_environment_gets_into_no_output(emu, tmp_path, monkeypatch, arguments):
    monkeypatch.setenv("SECRET", "s3cr3t")
    code, out, err = emu(*arguments, *SHORT)
    assert code == 2
    assert len(err) == 1 and "${oc.env:...} is not allowed: results would show the environment" in err[0]
    assert "s3cr3t" not in "".join([*out, *err])
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_is_shown_and_not_run(emu, tmp_path):
    code, out, _ = emu("--cfg", "job", "runtime=virtual", "seed=7")
    assert code == 0
    assert "seed: 7" in out
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made(emu):
    code, out, err = emu(*SHORT, "hydra.run.dir=/dev/null/run")
    assert (code, out) == (1, [])
    assert err == ["emu: /dev/null/run: Not a directory"]


def test_a_full_disk(emu, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # more than the configuration, less than the events
    try:
        code, out, err = emu(*SHORT, "results.events=true", f"hydra.run.dir={tmp_path / 'full'}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (code, out) == (1, [])
    assert err[-1:] == [f"emu: the run in {tmp_path / 'full'} failed: File too large"]  # a Ray that was joined here logs, too


# --- the directory of a run -------------------------------------------------------------------------------------------


def test_a_directory_with_a_run_is_kept_unless_told(emu, tmp_path):
    there = f"hydra.run.dir={tmp_path / 'my run'}".replace("=", "='") + "'"
    assert emu(*SHORT, there, "results.events=true")[0] == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    code, out, err = emu(*SHORT, there, "seed=1")
    assert (code, out) == (2, [])
    assert err == [
        f"emu: hydra.run.dir={tmp_path / 'my run'}: holds .hydra already; expected a new or empty directory, "
        "or overwrite=true to delete the run that is there"
    ]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    code, out, err = emu(*SHORT, there, "seed=1", "overwrite=true")
    assert (code, err) == (0, [])
    assert sorted(path.name for path in run_dir_of(out).iterdir()) == [".hydra", ".lock", *FILES[1:]]
    assert summary_of(tmp_path / "my run")["seed"] == 1


@pytest.mark.parametrize("stranger", ["thesis.tex", "report.html/", "..part", ".bashrc"])
def test_a_directory_with_anything_else_is_never_cleared(emu, tmp_path, stranger):
    place = tmp_path / "home"
    (place / ".hydra").mkdir(parents=True)
    (place / stranger).mkdir() if stranger.endswith("/") else (place / stranger).write_text("mine")
    code, out, err = emu(*SHORT, f"hydra.run.dir={place}", "overwrite=true")
    assert (code, out) == (2, [])
    assert err == [
        f"emu: hydra.run.dir={place}: holds {stranger.rstrip('/')}, which no run leaves; "
        "overwrite=true deletes the directory of a run and no other"
    ]
    assert (place / stranger).exists() and not (place / ".lock").exists()


def test_one_result_alone_is_no_run(emu, tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/report.html").write_text("mine")
    code, _, [error] = emu(*SHORT, "hydra.run.dir=pages", "overwrite=true")
    assert code == 2
    assert "holds report.html, but neither .hydra nor the summary.json of a run; " in error
    assert (tmp_path / "pages/report.html").read_text() == "mine"


def test_a_link_is_deleted_and_not_what_it_leads_to(emu, tmp_path):
    (tmp_path / "run/.hydra").mkdir(parents=True)
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run/summary.json").symlink_to(tmp_path / "mine")
    assert emu(*SHORT, "hydra.run.dir=run", "overwrite=true")[0] == 0
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "run/summary.json").is_symlink()


def test_one_run_at_a_time_is_in_a_directory(emu, tmp_path):
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run/.lock"):
        code, out, err = emu(*SHORT, "hydra.run.dir=run", "overwrite=true")
    assert (code, out) == (2, [])
    assert err == [f"emu: hydra.run.dir={tmp_path / 'run'}: another emu is running there; expected another one"]


def test_a_sweep_does_not_overwrite(emu, tmp_path):
    line = "emu: overwrite=true: a sweep goes on in its directory; for a new one set hydra.sweep.dir"
    assert emu("-m", *SHORT, "overwrite=true", "seed=1,2") == (2, [], [line])


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def test_ctrl_c_once_writes_what_there_is(emu, monkeypatch):
    monkeypatch.setattr(ProgressDisplay, "show", lambda display, progress: os.kill(os.getpid(), signal.SIGINT))
    code, out, err = emu("runtime=virtual", "workload.duration_s=200", "results.events=true")
    assert (code, err) == (130, ["emu: interrupted"])
    run_dir = run_dir_of(out)
    assert sorted(path.name for path in run_dir.iterdir()) == [".hydra", ".lock", *FILES]
    summary = summary_of(run_dir)
    assert (summary["interrupted"], summary["verdict"]) == ("Ctrl-C", "INVALID")
    requests = summary["requests"]
    assert 0 < requests["finished"] < requests["submitted"] < 1600


def test_ctrl_c_twice_leaves_at_once_and_no_process(tmp_path):
    script = """
        import os, signal, subprocess, sys
        from emu.__main__ import main
        from emu.progress import ProgressDisplay

        def press_twice(display, progress):
            subprocess.Popen(["sleep", "60"])
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

        ProgressDisplay.show = press_twice
        sys.argv = ["emu", "runtime=virtual", "workload.duration_s=200"]
        main()
    """
    # Returns when nobody holds the pipe of its output any more: the sleeping child neither.
    command = [sys.executable, "-c", textwrap.dedent(script)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
    assert not list(tmp_path.rglob("summary.json"))


# --- processes of their own -------------------------------------------------------------------------------------------

COMMANDS = {"python -m emu": [sys.executable, "-m", "emu"], "emu": [str(Path(sys.executable).with_name("emu"))]}


@pytest.mark.parametrize("command", COMMANDS)
def test_both_commands_run(tmp_path, command):
    if command == "emu" and not Path(COMMANDS[command][0]).exists():
        pytest.skip("the console script is not installed: pip install -e .")
    ended = subprocess.run([*COMMANDS[command], *SHORT], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert run_dir_of(ended.stdout.splitlines()).is_dir()


def test_nothing_is_imported_from_the_working_directory(tmp_path):
    """As tools/emu starts it: neither here nor in the workers of a sweep."""
    for module in ("msgpack", "yaml", "pyarrow", "xxhash", "emu", "hydra_plugins/evil"):
        (tmp_path / module).parent.mkdir(exist_ok=True)
        (tmp_path / f"{module}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write('{module} ')")
    command = [*COMMANDS["python -m emu"], "-m", *SHORT, "seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "results: 2 VALID" in ended.stdout
    assert not (tmp_path / "imported").exists()


def test_a_traceback_where_it_is_asked_for(tmp_path):
    environment = os.environ | {"HYDRA_FULL_ERROR": "1"}
    command = [*COMMANDS["python -m emu"], "runtime=virtual", "seed=-1"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("Traceback")
    assert ended.stderr.endswith("\nemu: seed=-1: expected a whole number from 0 to 2147483647\n")


def test_the_virtual_runtime_imports_nothing_heavy(tmp_path):
    script = f"""
        import sys
        from pathlib import Path
        import emu.cli.run
        from emu.build import build, compose

        plan = build(compose({list(SHORT)}))
        plan.run(run_dir=Path("."), log_events=True)
        print(sorted({{"ray", "torch", "pyarrow", "rich", "asyncio"}} & set(sys.modules)))
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_a_subcommand_explains_itself(name, tmp_path):
    ended = subprocess.run([*COMMANDS["python -m emu"], name, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"usage: emu {name} ")


def test_a_word_that_is_no_subcommand_is_refused_with_their_names(tmp_path):
    ended = subprocess.run([*COMMANDS["python -m emu"], "comapre", "a", "b"], cwd=tmp_path, capture_output=True, text=True)
    line = f"emu: comapre: expected KEY=VALUE, or one of {', '.join(SUBCOMMANDS)}; see emu --help\n"
    assert (ended.returncode, ended.stderr) == (2, line)


def test_what_a_subcommand_lacks_is_said_in_one_line(tmp_path):
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich/__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'plaster'\", name='plaster')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [*COMMANDS["python -m emu"], "report", "nothing"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("emu: emu report needs plaster, which is not installed; ") and ended.stderr.count("\n") == 1
