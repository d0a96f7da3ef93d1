"""How far emulated machines are from real ones: serve one workload by real machines and again by emulated ones, and compare.

    emu validate [--repeats N] [--as-calibrated] [--runs DIR] [KEY=VALUE ...]

Both on the wall clock, with the same configuration and seed. The configuration is experiment=validate, changed by KEY=VALUE as
for `emu`: timing=NAME for another calibration than this host's, experiment=validate_disaggregated for two machines, model=,
workload.rate_rps=, execution.device=cuda, ... Keep machines at most half busy, and leave the host alone.

A host may be faster or slower than it was when it was calibrated. Real machines time a step that never changes while they are
idle; the emulated ones then run at that speed (timing.prefill_speed, timing.decode_speed), which is printed, unless told to run
--as-calibrated.

Prints TTFT, TPOT and E2E of both, by how much the emulated figure is off, the interval predicted for it, whether that covers
the real value, and the correlation over the requests. A request counts with its median over the repeats: what one run met, such
as a pause of the host, does not. DIR (runs/validate/DATE/TIME) gets all runs and validate.json, with the errors of each repeat.
Exit codes: 0, 1 for a run that failed or where all real or all emulated runs are INVALID, 2 for wrong input, 130 for Ctrl-C.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from emu.build import build, compose, plain
from emu.config_error import ConfigError
from emu.results.agreement import METRICS, STATISTICS, AgreementError, RunResults, agreement, read_results
from emu.results.distribution import p99_name
from emu.results.sweep_table import write_json
from emu.results.verdict import INVALID
from emu.runtime.interrupt import EXIT_CODE

REAL, EMULATED = "real", "emulated"
NAMES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E"}


class RunFailed(RuntimeError):
    """A run that did not come to its end. The text is for the user."""


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("emu validate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = _refuse  # type: ignore[method-assign]  # as argparse documents it
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="runs of each kind (default: %(default)s)")
    parser.add_argument("--as-calibrated", action="store_true", help="emulate the speed in the calibration, whatever it is now")
    parser.add_argument("--runs", type=Path, metavar="DIR")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_intermixed_args(argv)
    if args.repeats < 1:
        raise ConfigError(f"--repeats {args.repeats}: expected a whole number from 1")
    for override in args.overrides:
        if override.partition("=")[0] in ("execution", "runtime"):
            raise ConfigError(f"{override}: set here: execution=torch, then execution=emulated, both with runtime=ray")
    return args


def _refuse(message: str) -> NoReturn:
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
    command = [sys.executable, "-P", "-m", "emu", *overrides, f"hydra.run.dir={run_dir}"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RunFailed(f"the {kind} run in {run_dir} failed: {lines[-1].removeprefix('emu: ')}")


def speed_overrides(real: RunResults, timing: Mapping[str, Any]) -> list[str]:
    """What tells emulated machines, whose timing is configured so, to run at the speed that the real ones had, as far as that
    is known."""
    can_be_told = "prefill_speed" in timing
    speeds = {phase: figures["speed"] for phase, figures in real.summary.get("speed", {}).items()}
    return [f"timing.{phase}_speed={speed:.4f}" for phase, speed in speeds.items() if can_be_told and speed is not None]


def table(compared: dict[str, Any]) -> list[tuple[str, ...]]:
    """The rows to print; times in milliseconds."""
    rows: list[tuple[str, ...]] = [("ms", "real", "emulated", "off by", "predicted", "covers", "correlation")]
    for metric in METRICS:
        for statistic in STATISTICS:
            figure = compared[metric][statistic]
            name = p99_name(compared[metric]["requests"]) if statistic == "p99" else statistic
            low, high, covers, error = (figure[key] for key in ("low", "high", "covers", "error"))
            rows.append(
                (
                    f"{NAMES[metric]} {name}",
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


def judged(runs: Sequence[Mapping[str, Any]]) -> tuple[list[str], bool]:
    """What to say of the verdicts before any figure, and whether of each kind a run is better than INVALID."""
    invalid = [one["kind"] for one in runs if one["verdict"] == INVALID]
    for kinds, whose in (((REAL, EMULATED), ""), ((REAL,), f"{REAL} "), ((EMULATED,), f"{EMULATED} ")):
        num_runs = sum(one["kind"] in kinds for one in runs)
        if num_runs == sum(kind in kinds for kind in invalid):
            return [f"all {num_runs} {whose}runs are INVALID, for the reasons below: the figures must not be used"], False
    return ([f"{len(invalid)} of {len(runs)} runs are INVALID, for the reasons below"] if invalid else []), True


def validate(args: argparse.Namespace) -> int:
    lines = command_lines(args.overrides)
    directory = args.runs or Path("runs/validate") / datetime.now().strftime("%Y-%m-%d/%H-%M-%S-%f")
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"--runs {directory}: expected a new or empty directory")
    values = plain(compose(lines[EMULATED]))
    results: dict[str, list[RunResults]] = {REAL: [], EMULATED: []}
    runs = []

    def run_one(kind: str, repeat: int, told: Sequence[str]) -> None:
        run_dir, overrides = directory / f"{kind}-{repeat}", [*lines[kind], *told]
        print(f"{kind}: {run_dir}", *told, flush=True)
        run(kind, overrides, run_dir)
        result = read_results(run_dir, values["metrics"]["warmup_s"])
        results[kind].append(result)
        found = {key: result.summary[key] for key in ("verdict", "verdict_reasons")}
        runs.append({"kind": kind, "run_dir": str(run_dir), "overrides": overrides, **found})

    for repeat in range(args.repeats):
        run_one(REAL, repeat, [])
        run_one(EMULATED, repeat, [] if args.as_calibrated else speed_overrides(results[REAL][-1], values["timing"]))
    compared = agreement(results[REAL], results[EMULATED])
    lines_first, is_comparable = judged(runs)
    print(*lines_first, sep="\n", end="\n" * bool(lines_first))
    print_table(table(compared))
    for one in runs:
        print(f"{one['verdict']:<12}  {one['kind']}: {one['run_dir']}", *one["verdict_reasons"], sep="\n    ")
    content = {"runs": runs, **compared, "host": results[REAL][0].summary["host"]}
    write_json(content, directory / "validate.json")
    print(f"validation: {directory / 'validate.json'}")
    return int(not is_comparable)


def main(argv: list[str]) -> int:
    try:
        return validate(arguments(argv))
    except KeyboardInterrupt:
        print("emu validate: interrupted", file=sys.stderr)
        return EXIT_CODE
    except ConfigError as error:
        print(f"emu validate: {error}", file=sys.stderr)
        return 2
    except (RunFailed, AgreementError, OSError) as error:
        print(f"emu validate: {error}", file=sys.stderr)
        return 1
