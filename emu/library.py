"""The library: what `emu` and `emu -m` do, for a program.

import emu

result = emu.run(["runtime=virtual", "workload.rate_rps=6"])
result.summary["ttft_s"]["p99"]             # seconds
result.requests.to_pandas()                 # a row a request

sweep = emu.sweep(["runtime=virtual", "workload.rate_rps=4,8", "cluster.num_prompt=2,4"], "runs/mine")
sweep.table.to_pandas()                     # a row a run

emu.load("runs/mine/0").verdict             # VALID, DEGRADED or INVALID
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emu.build import build, compose_run, plain
from emu.compose import as_value
from emu.progress import ProgressDisplay
from emu.rehearse import raise_if_ended_early, rehearse, rehearse_in_sweep
from emu.results.requests_file import REQUESTS
from emu.results.sweep_table import SUMMARY, TABLE, finished_summary, write_sweep_table
from emu.results.verdict import VALID
from emu.run_directory import discard, opened
from emu.runtime.errors import NotStartedError
from emu.sweeps.directory import opened as opened_sweep
from emu.sweeps.launch import launch
from emu.sweeps.plan import plan_sweep
from emu.sweeps.run import write_config

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Result:
    """A run that has ended: its directory, and its summary as README.md explains it."""

    directory: Path
    summary: dict[str, Any]

    @property
    def verdict(self) -> str:
        """VALID, DEGRADED, INVALID or ILLUSTRATIVE; the reasons are `summary["verdict_reasons"]`."""
        return self.summary["verdict"]

    @property
    def is_valid(self) -> bool:
        return self.verdict == VALID

    @cached_property
    def requests(self) -> "pa.Table":
        """A row a request, in order of arrival. Raises OSError where requests.parquet cannot be read."""
        from pyarrow import parquet

        return parquet.read_table(self.directory / REQUESTS)


@dataclass(frozen=True)
class Sweep:
    """A sweep that has ended: its directory, and a result of each run that came to its end, in order."""

    directory: Path
    results: list[Result]

    @cached_property
    def table(self) -> "pa.Table":
        """A row a run, in order: its settings, `status` and figures; `error` where it failed."""
        from pyarrow import parquet

        return parquet.read_table(self.directory / TABLE)


def run(overrides: Sequence[str] = (), directory: str | Path | None = None, shows_progress: bool = False) -> Result:
    """Run what `emu OVERRIDES` runs; return its result.

    Its files go to `directory`, new or empty, or where the command puts them. `shows_progress` on stderr. To be called in the
    main thread. Raises ConfigError for wrong input, RunDirectoryError, RunError where the run failed, KeyboardInterrupt after
    Ctrl-C, with the files written.
    """
    config, whole = compose_run(list(overrides))
    plan = build(config)
    plan = replace(plan, results=plan.results.settled(plan.runtime.logs_events, in_sweep=False))
    run_dir = Path(directory if directory is not None else whole.hydra.run.dir).absolute()
    choices = {str(group): str(option) for group, option in whole.hydra.runtime.choices.items()}
    with opened(run_dir, plan.overwrite), ProgressDisplay(plan.num_requests) if shows_progress else nullcontext() as display:
        write_config(run_dir, plain(config), list(overrides))
        try:
            summary = rehearse(plan, run_dir, list(overrides), choices, display)
        except NotStartedError:
            discard(run_dir)
            raise
    raise_if_ended_early(summary)
    return Result(run_dir, summary)


def sweep(overrides: Sequence[str], directory: str | Path | None = None) -> Sweep:
    """Run what `emu -m OVERRIDES` runs, less what is in `directory` already; return all results.

    Prints a line a run. A run that fails does not end the others: `Sweep.table` has its error. Raises ConfigError for wrong
    input, before any run starts, RunError where the launcher fails, KeyboardInterrupt after Ctrl-C.
    """
    place = [] if directory is None else [f"hydra.sweep.dir={as_value(str(Path(directory).absolute()))}"]
    plan = plan_sweep([*overrides, *place])
    with opened_sweep(plan) as pending:
        try:
            launch(plan, pending, rehearse_in_sweep)
        finally:
            write_sweep_table(plan.directory)
    run_dirs = [plan.directory / str(one.number) for one in plan.runs]
    return Sweep(plan.directory, [load(run_dir) for run_dir in run_dirs if finished_summary(run_dir) is not None])


def load(directory: str | Path) -> Result:
    """The result of a run that came to its end earlier. Raises ValueError where `directory` holds none."""
    run_dir = Path(directory).absolute()
    summary = finished_summary(run_dir)
    if summary is None:
        raise ValueError(f"{run_dir}: no {SUMMARY} of a run that came to its end")
    return Result(run_dir, summary)
