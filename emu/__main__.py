"""The command line: `emu [KEY=VALUE ...]` runs a rehearsal, `emu -m KEY=VALUE,VALUE ...` a sweep of them.

Every mistake in the input is found before anything starts, and told in one line on stderr; HYDRA_FULL_ERROR=1 adds the
traceback. Exit codes: 0, 1 for a run that failed, 2 for wrong input, 130 for Ctrl-C.
"""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from emu.build import CONF_DIR, CONFIG_NAME, ConfigError, Plan, build, compose, explain, sweep
from emu.progress import ProgressDisplay
from emu.results.report import write_report
from emu.results.requests_file import write_requests
from emu.results.run_record import RunRecord
from emu.results.summary import summarize, write_summary
from emu.results.terminal import print_summary
from emu.results.verdict import VALID
from emu.runtime import interrupt
from emu.runtime.errors import RunError

USER_ERRORS = (ConfigError, HydraException, RunError, OSError)


def main() -> None:
    """The console script `emu`."""
    shows_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors to us instead of printing them

    def report(error: Exception) -> int:
        if shows_traceback:
            traceback.print_exception(error)
        print(f"emu: {explain(error)}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError | HydraException) else 1

    try:
        sys.exit(run_command(report))
    except KeyboardInterrupt:
        print("emu: interrupted", file=sys.stderr)
        sys.exit(interrupt.EXIT_CODE)
    except USER_ERRORS as error:
        sys.exit(report(error))


def run_command(report: Callable[[Exception], int]) -> int:
    """Check the command line, then let Hydra make the directory of each run and call back. Returns the exit code.

    A run of a sweep that fails is reported, and the others go on.
    """
    parser = get_args_parser()
    parser.error = _refuse_arguments
    args = parser.parse_args()
    asks_only = args.help or args.hydra_help or args.cfg or args.info or args.shell_completion
    config, plan = None, None
    if not (asks_only or args.config_name or args.config_path or args.config_dir or args.experimental_rerun):
        for overrides in sweep(args.overrides) if args.multirun else [args.overrides]:
            config = compose(overrides)
            plan = build(config)
    exit_codes = []

    def run_job(job_config: DictConfig) -> None:
        try:
            exit_codes.append(rehearse(plan if job_config == config else build(job_config)))
        except USER_ERRORS as error:
            exit_codes.append(report(error))

    hydra.main(config_path=str(CONF_DIR), config_name=CONFIG_NAME, version_base=None)(run_job)()
    return max(exit_codes, default=0)


def _refuse_arguments(message: str) -> NoReturn:
    raise ConfigError(f"{message}; expected emu [FLAGS] [KEY=VALUE ...], flags first; see emu --help")


def rehearse(plan: Plan) -> int:
    """Run, write the results into the directory that Hydra made, print them. Returns the exit code."""
    job = HydraConfig.get()
    run_dir = Path(job.runtime.output_dir)
    log_events = plan.results.events
    if log_events == "auto":
        log_events = plan.runtime.logs_events and job.mode is not RunMode.MULTIRUN
    with ProgressDisplay(plan.num_requests) as display:
        rehearsal = plan.rehearse(run_dir=run_dir, log_events=log_events, on_progress=display.show, on_status=display.say)
        try:
            record = plan.runtime.run(rehearsal)
            summary = write_results(plan, record, run_dir, list(job.overrides.task), dict(job.runtime.choices))
        except OSError as error:
            raise RunError(f"the run in {run_dir} failed: {error.strerror or error}") from error
    print_summary(summary)
    print(f"run: {run_dir}", flush=True)
    if record.interrupted == interrupt.CAUSE:
        raise KeyboardInterrupt
    if record.interrupted:
        raise RunError(f"the run ended early: {record.interrupted}")
    return int(plan.require_valid and summary["verdict"] != VALID)


def write_results(
    plan: Plan, record: RunRecord, run_dir: Path, overrides: list[str], choices: dict[str, str]
) -> dict[str, Any]:
    """Write the files of the run; return its summary. Raises OSError."""
    record.host.update(overrides=overrides, run_dir=str(run_dir))
    summary = summarize(record, plan.metrics.warmup_s, plan.verdict, plan.service_levels, plan.power)
    columns = record.recorder.columns()
    write_requests(columns.requests, run_dir / "requests.parquet")
    if plan.results.report:
        groups = ("cluster", "workload", "placement", "batching", "timing", "slo", "power")
        settings = {group: choices[group] for group in groups if group in choices}
        write_report(
            run_dir / "report.html",
            record,
            columns,
            summary,
            settings=settings,
            overrides=overrides,
            warmup_s=plan.metrics.warmup_s,
        )
    summary["host"]["wall_s"] = perf_counter() - record.wall_start
    write_summary(summary, run_dir / "summary.json")
    return summary


if __name__ == "__main__":
    main()
