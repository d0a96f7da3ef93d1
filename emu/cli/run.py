"""The command line: `emu [KEY=VALUE ...]` runs a rehearsal, `emu -m KEY=VALUE,VALUE ...` a sweep of them.

Every mistake in the input is found before anything starts, and told in one line on stderr; HYDRA_FULL_ERROR=1 adds the
traceback. Exit codes: 0, 1 for a run that failed, 2 for wrong input, 130 for Ctrl-C.
"""

import os
import shlex
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from emu import __version__
from emu.build import Plan, build, compose_run
from emu.compose import CONF_DIR, CONFIG_NAME, as_value, quoted, refuse_environment
from emu.config_error import ConfigError, explain
from emu.hydra_private import get_args_parser
from emu.install import is_compiled
from emu.progress import ProgressDisplay
from emu.rehearse import raise_if_ended_early, rehearse, rehearse_in_sweep
from emu.results.sweep_curves import illustrations
from emu.results.sweep_table import FINISHED, TABLE, sweep_rows, write_sweep_table
from emu.results.terminal import print_summary
from emu.results.verdict import VALID
from emu.run_directory import RunDirectoryError, discard, opened
from emu.runtime import interrupt
from emu.runtime.errors import NotStartedError, RunError
from emu.sweeps.directory import opened as opened_sweep
from emu.sweeps.launch import launch
from emu.sweeps.plan import plan_sweep

INPUT_ERRORS = (ConfigError, RunDirectoryError, HydraException, OmegaConfBaseException)
USER_ERRORS = (*INPUT_ERRORS, RunError, OSError)


def main(argv: list[str]) -> NoReturn:
    """`argv` are the words after `emu`, which Hydra reads from `sys.argv`."""
    sys.argv[1:] = argv
    shows_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors to us instead of printing them

    def report(error: Exception) -> int:
        if shows_traceback:
            traceback.print_exception(error)
        print(f"emu: {explain(error)}", file=sys.stderr)
        return 2 if isinstance(error, INPUT_ERRORS) else 1

    try:
        sys.exit(run_command(report))
    except KeyboardInterrupt:
        print("emu: interrupted", file=sys.stderr)
        sys.exit(interrupt.EXIT_CODE)
    except USER_ERRORS as error:
        sys.exit(report(error))


def run_command(report: Callable[[Exception], int]) -> int:
    """Check the command line, then let Hydra make the directory of the run and call back. Returns the exit code."""
    command = shlex.join(["emu", *sys.argv[1:]])
    refuse_environment()
    sys.argv[1:] = [argument if argument.startswith("-") else quoted(argument) for argument in sys.argv[1:]]  # Hydra reads it
    # "resolve": ours takes the place of Hydra's --version, which tells that of Hydra.
    parser = ArgumentParser(parents=[get_args_parser()], add_help=False, conflict_handler="resolve")
    parser.error = _refuse_arguments  # type: ignore[method-assign]  # as argparse documents it
    form = "compiled" if is_compiled() else "plain Python, not compiled"
    parser.add_argument("--version", action="version", version=f"emu {__version__} ({form})")
    args = parser.parse_args()
    asks_only = args.help or args.hydra_help or args.cfg or args.info or args.shell_completion
    _refuse_flags(args)
    is_sweep = args.multirun or "hydra.mode=MULTIRUN" in args.overrides
    if is_sweep and not asks_only:
        return sweep(args.overrides)
    # Hydra composes the same once more, and makes of its own node what that says: only after it was checked here.
    overrides = [*_search_path(args.config_dir), *args.overrides]
    config, plan = None, None
    exit_codes = []
    stack = ExitStack()
    if not (is_sweep or args.shell_completion):
        config, whole = compose_run(overrides)
        plan = None if asks_only else build(config)
    if plan is not None:
        # Asked for once: the time is part of it. Hydra writes there before it calls back.
        place = Path(whole.hydra.run.dir).absolute()
        stack.enter_context(opened(place, plan.overwrite))
        sys.argv.append(f"hydra.run.dir={as_value(str(place))}")

    def run_job(job_config: DictConfig) -> None:
        try:
            exit_codes.append(run(plan if plan is not None and job_config == config else build(job_config), command))
        except USER_ERRORS as error:
            exit_codes.append(report(error))

    with stack:
        hydra.main(config_path=str(CONF_DIR), config_name=CONFIG_NAME, version_base=None)(run_job)()
    return max(exit_codes, default=0)


def _refuse_flags(args: Namespace) -> None:
    if args.experimental_rerun:
        raise ConfigError("--experimental-rerun: unpickles a file, which runs what is in it; expected KEY=VALUE")
    if args.config_name or args.config_path:
        raise ConfigError(
            "--config-name, --config-path: there is one configuration; "
            "expected --config-dir DIRECTORY for further options of groups, such as its experiment/mine.yaml"
        )
    if args.config_dir and args.multirun:
        raise ConfigError("-m: cannot go with --config-*; expected hydra.searchpath=[DIRECTORY] for further options")
    if args.config_dir and not Path(args.config_dir).is_dir():
        raise ConfigError(f"--config-dir {args.config_dir}: no such folder; expected one with folders of groups")


def _search_path(config_dir: str | None) -> list[str]:
    """The override that has options looked for there, too."""
    if not config_dir:
        return []
    return [f"hydra.searchpath=[{as_value(f'file://{Path(config_dir).absolute()}')}]"]


def _refuse_arguments(message: str) -> NoReturn:
    raise ConfigError(f"{message}; expected emu [FLAGS] [KEY=VALUE ...], flags first; see emu --help")


def run(plan: Plan, command: str) -> int:
    """A run by itself: its progress, its results in the directory that Hydra made, its summary. Returns the exit code."""
    job = HydraConfig.get()
    run_dir = Path(job.runtime.output_dir)
    for note in plan.notes:
        print(note, flush=True)
    with ProgressDisplay(plan.num_requests) as display:
        settled = replace(plan, results=plan.results.settled(plan.runtime.logs_events, in_sweep=False))
        try:
            summary = rehearse(settled, run_dir, list(job.overrides.task), dict(job.runtime.choices), display, command)
        except NotStartedError:
            discard(run_dir)
            raise
    print_summary(summary)
    print(f"run: {run_dir}", flush=True)
    raise_if_ended_early(summary)
    return int(plan.require_valid and summary["verdict"] != VALID)


def sweep(overrides: list[str]) -> int:
    """All runs of a sweep that are not there already, and the table of them all. Returns the exit code."""
    plan = plan_sweep(overrides)
    command = [override for override in overrides if not override.startswith(("hydra.sweep.dir=", "hydra.mode="))]
    with opened_sweep(plan) as pending:
        print(f"sweep: {len(plan.runs)} runs, {len(plan.runs) - len(pending)} of them there already, in {plan.directory}")
        print(f"to resume it: emu -m {shlex.join([*command, f'hydra.sweep.dir={plan.directory}'])}", flush=True)
        try:
            launch(plan, pending, rehearse_in_sweep)
        finally:  # Ctrl-C too leaves a table of what there is
            outcomes = write_sweep_table(plan.directory)
        rows = sweep_rows(plan.directory)
    print(f"results: {', '.join(f'{number} {outcome}' for outcome, number in sorted(outcomes.items()))}")
    for line in illustrations(rows):
        print(f"ILLUSTRATIVE: {line}")
    print(f"table: {plan.directory / TABLE}; as a page: emu report {plan.directory}", flush=True)
    is_good = [
        row["status"] == FINISHED and (not run.require_valid or row["verdict"] == VALID)
        for run, row in zip(plan.runs, rows, strict=True)
    ]
    return int(not all(is_good))
