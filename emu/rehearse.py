"""One run from its plan to its files."""

import shlex
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from emu.build import Plan
from emu.progress import ProgressDisplay
from emu.results.outputs_file import write_outputs
from emu.results.report import write_report
from emu.results.requests_file import REQUESTS, write_requests
from emu.results.run_record import RunRecord
from emu.results.summary import summarize, write_summary
from emu.runtime import interrupt
from emu.runtime.errors import RunError
from emu.runtime.prediction_interval import prediction_interval


def rehearse_in_sweep(plan: Plan, run_dir: Path, overrides: list[str], choices: dict[str, str]) -> dict[str, Any]:
    """A run of a sweep. A module's function, for workers to find it. As `rehearse`; shows progress where it takes wall time."""
    plan = replace(plan, results=plan.results.settled(plan.runtime.logs_events, in_sweep=True))
    if plan.runtime.name == "virtual":
        return rehearse(plan, run_dir, overrides, choices)
    with ProgressDisplay(plan.num_requests) as display:
        return rehearse(plan, run_dir, overrides, choices, display)


def rehearse(
    plan: Plan,
    run_dir: Path,
    overrides: list[str],
    choices: dict[str, str],
    display: ProgressDisplay | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Run and write the results into `run_dir`; return the summary. Raises RunError."""
    shows = {} if display is None else {"on_progress": display.show, "on_status": display.say}
    try:
        record = plan.run(run_dir=run_dir, log_events=plan.results.events, **shows)
        return write_results(plan, record, run_dir, overrides, choices, command)
    except OSError as error:
        raise RunError(f"the run in {run_dir} failed: {error.strerror or error}") from error


def write_results(
    plan: Plan, record: RunRecord, run_dir: Path, overrides: list[str], choices: dict[str, str], command: str = ""
) -> dict[str, Any]:
    """Write the files of the run; return its summary. `command` is what was typed, '' for `emu OVERRIDES`. Raises OSError."""
    record.host.update(overrides=overrides, run_dir=str(run_dir))
    warmup_s = plan.metrics.warmup_s
    interval = prediction_interval(plan.run_config, record, warmup_s)
    summary = summarize(record, warmup_s, plan.verdict, plan.service_levels, plan.power, interval)
    columns = record.recorder.columns()
    write_requests(columns.requests, run_dir / REQUESTS)
    if len(columns.answers):
        write_outputs(columns.answers, run_dir / "outputs.jsonl")
    if plan.results.report:
        groups = ("cluster", "workload", "placement", "batching", "timing", "execution", "transfer", "slo", "power")
        settings = {group: choices[group] for group in groups if group in choices}
        write_report(
            run_dir / "report.html",
            record,
            columns,
            summary,
            settings=settings,
            overrides=overrides,
            warmup_s=warmup_s,
            command=command or shlex.join(["emu", *overrides]),
            reference=plan.service_levels.timing,
        )
    summary["host"]["wall_s"] = perf_counter() - record.wall_start
    write_summary(summary, run_dir / "summary.json")
    return summary


def raise_if_ended_early(summary: dict[str, Any]) -> None:
    """Raises KeyboardInterrupt after Ctrl-C, RunError where the run ended early for another reason."""
    if summary["interrupted"] == interrupt.CAUSE:
        raise KeyboardInterrupt
    if summary["interrupted"]:
        raise RunError(f"the run ended early: {summary['interrupted']}")
