"""The directory of a sweep: what was asked, which runs are there already, and that one sweep at a time works in it."""

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from emu.config_error import ConfigError
from emu.files import LOCK, locked
from emu.results.sweep_table import SWEEP, finished_summary, is_sweep, read_json, write_json
from emu.sweeps.plan import PlannedRun, SweepPlan


@contextmanager
def opened(plan: SweepPlan) -> Iterator[list[PlannedRun]]:
    """Yields the runs that are still to be run, all of them in a new directory.

    Raises ConfigError where the directory holds another sweep, or anything but a sweep, or another process is at work there;
    OSError where it cannot be made.
    """
    directory = plan.directory
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(directory / LOCK))
        except BlockingIOError as error:
            raise ConfigError(f"hydra.sweep.dir={directory}: another emu is sweeping there; wait for it") from error
        wanted, found = plan.as_json(), read_json(directory / SWEEP)
        if not is_sweep(found):
            _check_empty(directory)
            write_json(wanted, directory / SWEEP)
        elif found != wanted:
            raise ConfigError(
                f"hydra.sweep.dir={directory}: holds the runs of another sweep: {_difference(found, wanted)}; "
                "expected the command that it was started with, or another directory"
            )
        yield [run for run in plan.runs if not is_finished(plan, run)]


def is_finished(plan: SweepPlan, run: PlannedRun) -> bool:
    """Whether the run ended as it should. One that failed is run again: the cause may be gone."""
    summary = finished_summary(plan.directory / str(run.number))
    host = None if summary is None else summary.get("host")
    return isinstance(host, dict) and host.get("overrides") == run.overrides


def _check_empty(directory: Path) -> None:
    strangers = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    if SWEEP in strangers:
        raise ConfigError(
            f"hydra.sweep.dir={directory}: its {SWEEP} does not list the runs of a sweep; "
            "expected an empty directory or that of a sweep"
        )
    if strangers:
        raise ConfigError(
            f"hydra.sweep.dir={directory}: holds {strangers[0]} and no {SWEEP}; expected an empty directory or that of a sweep"
        )


def _difference(found: dict, wanted: dict) -> str:
    """The first thing that is not as it was."""
    runs, new_runs = found["runs"], wanted["runs"]
    if len(runs) != len(new_runs):
        return f"it has {len(runs)} runs, and {len(new_runs)} are asked for"
    for number, (run, new) in enumerate(zip(runs, new_runs, strict=True)):
        if run.get("overrides") != new["overrides"]:
            return f"run {number} was {_command(run.get('overrides'))}, and is {_command(new['overrides'])}"
        for part, what in (("workload", "the requests (its trace?)"), ("config", "the configuration (a file in conf/?)")):
            if run.get(part) != new[part]:
                return f"{what} of run {number} changed since"
    return "emu itself, or numpy, changed since"


def _command(overrides: Any) -> str:
    return shlex.join(map(str, overrides)) if isinstance(overrides, list) else str(overrides)
