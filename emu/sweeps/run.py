"""One run of a sweep, in whichever process Hydra's launcher chose for it."""

import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from emu.build import Plan, build, plain
from emu.compose import compose
from emu.config_error import explain
from emu.files import write_text
from emu.results.distribution import p99_name
from emu.results.report.quantity import duration
from emu.results.sweep_table import FAILURE, SUMMARY, write_json
from emu.results.verdict import INVALID
from emu.runtime import interrupt
from emu.runtime.errors import RunError

STARTED = ".started"  # in the directory of a run that goes on, or whose process was killed
PARENT_LOOKED_AT_EVERY_S = 0.5

# (plan, directory, overrides, options chosen) -> summary, once the files of the run are written
Rehearse = Callable[[Plan, Path, list[str], dict[str, str]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class SweepRun:
    """What Hydra calls for each run. `varying` are the settings told on its line; `parent` is where the sweep was started.

    Whatever goes wrong becomes failure.json of that run: the others never notice.
    """

    rehearse: Rehearse
    hydra_overrides: list[str]
    varying: list[str]
    parent: tuple[str, int]

    def __call__(self, config: DictConfig) -> None:
        job = HydraConfig.get()
        if self.parent != here():
            belong_to(self.parent)
        self.run(Path(job.runtime.output_dir), list(job.overrides.task))

    def run(self, run_dir: Path, overrides: list[str]) -> None:
        """Run in this process, into `run_dir`. Raises KeyboardInterrupt after Ctrl-C, with the results written."""
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            for name in (SUMMARY, FAILURE):
                (run_dir / name).unlink(missing_ok=True)
            (run_dir / STARTED).touch()
            composed = compose([*self.hydra_overrides, *overrides])
            values = plain(composed.config)
            plan = build(values)
            write_config(run_dir, values, overrides)
            summary = self.rehearse(plan, run_dir, overrides, composed.choices)
            if summary["interrupted"] == interrupt.CAUSE:
                raise KeyboardInterrupt
            if summary["interrupted"]:
                raise RunError(f"the run ended early: {summary['interrupted']}")
        except Exception as error:
            self._fail(run_dir, error)
        else:
            print(f"run {run_dir.name}: {self._line(summary, overrides)}", flush=True)
        finally:
            (run_dir / STARTED).unlink(missing_ok=True)

    def _fail(self, run_dir: Path, error: Exception) -> None:
        is_expected = isinstance(error, RunError | OSError | ValueError)
        text = explain(error) if is_expected else f"{type(error).__name__}: {error}"
        record_failure(run_dir, text, traceback.format_exception(error))

    def _line(self, summary: dict[str, Any], overrides: list[str]) -> str:
        words = [summary["verdict"], *(["SATURATED"] if summary["saturated"] else [])]
        words += [override for override in overrides if override.split("=")[0].lstrip("+~") in self.varying]
        p99 = p99_name(summary["measured_requests"])
        latencies = (f"{name} {p99} {duration(summary[key]['p99'])}" for name, key in (("TTFT", "ttft_s"), ("E2E", "e2e_s")))
        reasons = f": {'; '.join(summary['verdict_reasons'])}" if summary["verdict"] == INVALID else ""
        return " ".join([*words, *latencies]) + reasons


def record_failure(run_dir: Path, text: str, details: list[str]) -> None:
    """Say that the run in `run_dir` failed, on stderr in one line and in failure.json."""
    print(f"emu: run {run_dir.name} failed: {text}; see {run_dir / FAILURE}", file=sys.stderr, flush=True)
    write_json({"error": text, "traceback": "".join(details).splitlines()}, run_dir / FAILURE)


def here() -> tuple[str, int]:
    """This process."""
    return socket.gethostname(), os.getpid()


def belong_to(parent: tuple[str, int]) -> None:
    """Leave Ctrl-C to the parent, who ends this process, and end with the parent where that is what started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    is_watching = any(thread.name == _end_with.__name__ for thread in threading.enumerate())
    if os.getppid() == parent[1] and not is_watching:
        threading.Thread(target=_end_with, args=parent[1:], name=_end_with.__name__, daemon=True).start()


def _end_with(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(PARENT_LOOKED_AT_EVERY_S)
    os._exit(1)


def write_config(run_dir: Path, values: dict[str, Any], overrides: list[str]) -> None:
    """config.yaml and overrides.yaml as Hydra has them; libyaml, and nothing to dereference, is ten times as fast."""
    folder = run_dir / ".hydra"
    folder.mkdir(exist_ok=True)
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    for name, content in (("config", values), ("overrides", overrides)):
        text = yaml.dump(content, Dumper=dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)
        write_text(text, folder / f"{name}.yaml")
