"""What can happen to a run from outside: a machine that hangs, a scheduler that is killed, Ctrl-C."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from emu.results.columns import FINISHED, UNFINISHED
from tests.runtime.test_ray_runtime import BASE

ROOT = Path(__file__).parents[2]


class Disturbance:
    """Sends `signal_number` to one actor process of class `actor`, when requests have arrived."""

    def __init__(self, actor: str, signal_number: int) -> None:
        self.actor = actor
        self.signal_number = signal_number
        self.pid: int | None = None

    def __call__(self, progress) -> None:
        if self.pid is None and progress.num_arrived:
            self.pid = newest_actor(self.actor).pid
            os.kill(self.pid, self.signal_number)


def newest_actor(name: str) -> psutil.Process:
    """The process of an actor of this process's Ray that began last: of this run, while one of the run before is ending."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "".join(process.cmdline()).startswith(f"ray::{name}"):
                found.append(process)
    return max(found, key=psutil.Process.create_time)


@pytest.mark.usefixtures("two_nodes")
def test_a_machine_that_falls_silent_is_declared_dead_and_ended(rehearse):
    stop = Disturbance("MachineHost", signal.SIGSTOP)
    try:
        record = rehearse(*BASE, "runtime.heartbeat_s=2", "workload.duration_s=3", on_progress=stop)
    finally:
        os.kill(stop.pid, signal.SIGCONT) if psutil.pid_exists(stop.pid) else None
    columns = record.recorder.columns()
    assert (columns.requests.status == FINISHED).all()
    assert list(columns.pool_moves.pool).count("dead") == 1
    assert all("silent for 2 s" in cause or "stream was closed" in cause for cause in columns.requeues.cause)


@pytest.mark.usefixtures("two_nodes")
def test_a_run_that_loses_its_scheduler_ends_with_what_was_recorded(rehearse):
    record = rehearse(*BASE, "workload.duration_s=3", on_progress=Disturbance("SchedulerHost", signal.SIGKILL))
    assert "the scheduler actor is gone" in record.interrupted
    assert (record.recorder.columns().requests.status == UNFINISHED).any()


def start_run(*overrides: str, cwd: Path) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-P", "-m", "emu", *overrides]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def family(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def wait_for_line(process: subprocess.Popen, text: str) -> None:
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"ended with {process.wait()} before it said {text!r}")


def poison(folder: Path) -> None:
    """Modules that actors import, and that say so when they are imported from this folder."""
    for module in ("psutil", "xxhash", "msgpack", "emu"):
        (folder / f"{module}.py").write_text(f"open({str(folder / 'imported')!r}, 'a').write('{module} ')")


def assert_nobody_gets_in(members: list[psutil.Process], folder: Path) -> None:
    """Not over the network: with a token, on loopback. Not by a file: nothing is imported from the working directory."""
    servers = [process for process in members if process.name() in ("raylet", "gcs_server")]
    assert {process.environ()["RAY_AUTH_MODE"] for process in servers} == {"token"}
    connections = [connection for process in members for connection in process.net_connections("inet")]
    listening = {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}
    assert listening and listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert not (folder / "imported").exists()


def test_ctrl_c_keeps_the_record_and_leaves_no_process(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    poison(tmp_path)
    run = start_run(*BASE, "workload.duration_s=60", cwd=tmp_path)
    wait_for_line(run, "requests ended")
    members = family(run)
    assert_nobody_gets_in(members, tmp_path)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: the whole process group
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    assert "Traceback" not in errors
    [summary_file] = tmp_path.glob("runs/*/*/summary.json")
    summary = json.loads(summary_file.read_text())
    assert summary["interrupted"]
    assert summary["requests"]["finished"] + summary["requests"]["failed"] == summary["requests"]["submitted"]
    assert psutil.wait_procs(members, timeout=20)[1] == []


def test_ctrl_c_twice_leaves_at_once(tmp_path):
    run = start_run(*BASE, "workload.duration_s=60", "workload.output_tokens=2000", cwd=tmp_path)
    wait_for_line(run, "requests ended")
    members = family(run)
    os.killpg(run.pid, signal.SIGINT)
    time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    run.communicate(timeout=30)
    assert run.returncode == 130
    assert psutil.wait_procs(members, timeout=20)[1] == []
