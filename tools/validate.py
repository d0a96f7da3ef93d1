#!/usr/bin/env python
"""How far emulated machines are from real ones: serve one workload by real machines and again by emulated ones, and compare.

    python tools/validate.py [--repeats N] [--runs DIR] [KEY=VALUE ...]

Both on the wall clock, with the same configuration and seed, in turn: a host that slows down hits both. The configuration is
experiment=validate, changed by KEY=VALUE as for `emu`: timing=NAME for another calibration than this host's, model=,
workload.rate_rps=, execution.device=cuda, ... Keep machines at most half busy: real ones share this host.

Prints TTFT, TPOT and E2E of both (medians over the repeats), by how much the emulated figure is off, the interval predicted for
it, whether that covers the real value, and the correlation over the requests. DIR (runs/validate/DATE/TIME) gets all runs and
validate.json. Exit codes: 0, 1 for a run that failed, 2 for wrong input, 130 for Ctrl-C.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from emu.build import ConfigError, build, compose
from emu.results.agreement import METRICS, STATISTICS, AgreementError, agreement, read_results
from emu.results.sweep_table import write_json
from emu.runtime.interrupt import EXIT_CODE

REAL, EMULATED = "real", "emulated"
NAMES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E"}


class RunFailed(RuntimeError):
    """A run that did not come to its end. The text is for the user."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = partial(_refuse, parser)
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="runs of each kind (default: %(default)s)")
    parser.add_argument("--runs", type=Path, metavar="DIR")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_intermixed_args()
    if args.repeats < 1:
        raise ConfigError(f"--repeats {args.repeats}: expected a whole number from 1")
    for override in args.overrides:
        if override.partition("=")[0] in ("execution", "runtime"):
            raise ConfigError(f"{override}: set here: execution=torch, then execution=emulated, both with runtime=ray")
    return args


def _refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    raise ConfigError(f"{message}; see --help")


def command_lines(overrides: Sequence[str]) -> dict[str, list[str]]:
    """What `emu` is told for each kind of run. Raises ConfigError where that cannot be run."""
    experiment = [] if any(override.startswith("experiment=") for override in overrides) else ["experiment=validate"]
    of_execution = [override for override in overrides if override.startswith("execution.")]
    others = [override for override in overrides if not override.startswith("execution.")]
    both = [*experiment, "runtime=ray", *others]
    kinds = {REAL: [*both, "execution=torch", *of_execution], EMULATED: [*both, "execution=emulated"]}
    for overrides_of_kind in kinds.values():
        build(compose(overrides_of_kind))
    return kinds


def run(kind: str, overrides: Sequence[str], run_dir: Path) -> None:
    """Run `emu`. Raises RunFailed with what it printed."""
    command = [sys.executable, "-m", "emu", *overrides, f"hydra.run.dir={run_dir}"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RunFailed(f"the {kind} run in {run_dir} failed: {lines[-1].removeprefix('emu: ')}")


def in_turn(num_repeats: int) -> Iterator[tuple[str, int]]:
    """Real, emulated, emulated, real, real, ...: what changes steadily over time hits both alike."""
    for repeat in range(num_repeats):
        for kind in (REAL, EMULATED) if repeat % 2 == 0 else (EMULATED, REAL):
            yield kind, repeat


def table(compared: dict[str, Any]) -> list[tuple[str, ...]]:
    """The rows to print; times in milliseconds."""
    rows = [("ms", "real", "emulated", "off by", "predicted", "covers", "correlation")]
    for metric in METRICS:
        for statistic in STATISTICS:
            figure = compared[metric][statistic]
            low, high, covers, error = (figure[key] for key in ("low", "high", "covers", "error"))
            rows.append(
                (
                    f"{NAMES[metric]} {statistic}",
                    _milliseconds(figure[REAL]),
                    _milliseconds(figure[EMULATED]),
                    "-" if error is None else f"{error:+.1%}",
                    "-" if low is None else f"{_milliseconds(low)} to {_milliseconds(high)}",
                    {True: "yes", False: "no", None: "-"}[covers],
                    _correlation(compared[metric]["correlation"]) if statistic == STATISTICS[0] else "",
                )
            )
    return rows


def _milliseconds(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s * 1e3:,.1f}"


def _correlation(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        aligned = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print("  ".join((name.ljust(widths[0]), *aligned)).rstrip())


def validate(args: argparse.Namespace) -> None:
    lines = command_lines(args.overrides)
    directory = args.runs or Path("runs/validate") / datetime.now().strftime("%Y-%m-%d/%H-%M-%S-%f")
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"--runs {directory}: expected a new or empty directory")
    directories: dict[str, list[Path]] = {REAL: [], EMULATED: []}
    for kind, repeat in in_turn(args.repeats):
        run_dir = directory / f"{kind}-{repeat}"
        print(f"{kind}: {run_dir}", flush=True)
        run(kind, lines[kind], run_dir)
        directories[kind].append(run_dir)
    results = {kind: [read_results(run_dir) for run_dir in run_dirs] for kind, run_dirs in directories.items()}
    compared = agreement(results[REAL], results[EMULATED])
    print_table(table(compared))
    runs = []
    for kind, of_kind in results.items():
        for run_dir, result in zip(directories[kind], of_kind, strict=True):
            verdict, reasons = result.summary["verdict"], result.summary["verdict_reasons"]
            runs.append({"kind": kind, "run_dir": str(run_dir), "verdict": verdict, "verdict_reasons": reasons})
            print(f"{verdict:<8}  {kind}: {run_dir}", *reasons, sep="\n    ")
    content = {"overrides": lines, "runs": runs, **compared, "host": results[REAL][0].summary["host"]}
    write_json(content, directory / "validate.json")
    print(f"validation: {directory / 'validate.json'}")


def main() -> int:
    try:
        validate(arguments())
    except KeyboardInterrupt:
        print("validate: interrupted", file=sys.stderr)
        return EXIT_CODE
    except ConfigError as error:
        print(f"validate: {error}", file=sys.stderr)
        return 2
    except (RunFailed, AgreementError, OSError) as error:
        print(f"validate: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
