"""Print the metrics of two runs side by side: `emu compare RUN_A RUN_B`, each the directory of a run."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emu.files import parse_json, read_text
from emu.results.distribution import p99_name

LATENCIES = ("ttft_s", "tbt_s", "tpot_s", "e2e_s", "queue_s", "second_token_gap_s", "decode_start_gap_s")
STATISTICS = ("mean", "p50", "p90", "p99", "max")
TEXTS = ("runtime", "seed", "model", "verdict", "saturated")
NUMBERS = (
    "requests.submitted",
    "requests.finished",
    "requests.failed",
    "tokens.prompt",
    "tokens.output",
    "tokens.recomputed",
    "offered_rps",
    "completed_rps",
    "kv.transfers",
    "kv.bytes_modelled",
    "kv.bytes_moved",
    "paused",
    "evicted",
    "restarted",
    "timing.extrapolated_steps",
    "late.messages.late",
    "late.messages.count",
    "late.wakeups.late",
    "late.wakeups.count",
    "emulated_s",
    "events",
)


class CompareError(ValueError):
    """A run that cannot be compared. The text is for the user."""


def read_summary(run: Path) -> dict[str, Any]:
    """The summary of the run in directory `run`. Raises CompareError where there is none."""
    path = run / "summary.json"
    try:
        summary = parse_json(read_text(path))
    except OSError as error:
        raise CompareError(f"{path}: {error.strerror}; expected the directory of a run that has ended") from error
    except ValueError as error:
        raise CompareError(f"{path}: not a summary: {error}") from error
    if not isinstance(summary, dict):
        raise CompareError(f"{path}: not a summary: expected an object")
    return summary


def value_at(summary: dict[str, Any], key: str, run: Path) -> Any:
    """The value at a dotted key. Raises CompareError where it is missing."""
    value: Any = summary
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise CompareError(f"{run / 'summary.json'}: {key} is missing; expected the summary of a run")
        value = value[part]
    return value


def number_at(summary: dict[str, Any], key: str, run: Path) -> float | None:
    """The number at a dotted key, None where there was nothing to measure. Raises CompareError for anything else."""
    value = value_at(summary, key, run)
    if value is not None and not isinstance(value, int | float):
        raise CompareError(f"{run / 'summary.json'}: {key}={value!r}; expected a number")
    return value


def rows(run_a: Path, run_b: Path) -> Iterator[tuple[str, str, str, str, str]]:
    """(metric, value of A, value of B, difference, difference in %) for each metric; times in milliseconds."""
    runs = [(run, read_summary(run)) for run in (run_a, run_b)]
    yield "", "A", "B", "B - A", "%"
    for key in TEXTS:
        a, b = (value_at(summary, key, run) for run, summary in runs)
        yield key, str(a), str(b), "", ""
    counts = [number_at(summary, "measured_requests", run) for run, summary in runs]
    p99 = " and ".join(dict.fromkeys(p99_name(int(number or 0)) for number in counts))
    for key in LATENCIES:
        for statistic in STATISTICS:
            a, b = (number_at(summary, f"{key}.{statistic}", run) for run, summary in runs)
            name = p99 if statistic == "p99" else statistic
            yield f"{key.removesuffix('_s')} {name} ms", *_cells(a, b, scale=1e3)
    for key in NUMBERS:
        a, b = (number_at(summary, key, run) for run, summary in runs)
        yield key, *_cells(a, b, scale=1)


def illustrations(run_a: Path, run_b: Path) -> Iterator[str]:
    """A line for each run whose figures are illustrative, and one where only those of one are."""
    lines = {name: _illustration(read_summary(run)) for name, run in (("A", run_a), ("B", run_b))}
    yield from (f"{name} is illustrative: {line}" for name, line in lines.items() if line)
    if len(set(map(bool, lines.values()))) > 1:
        yield "one of them is illustrative and the other is not: a difference between their figures predicts nothing"


def _illustration(summary: dict[str, Any]) -> str:
    timing = summary.get("timing")
    return str(timing.get("illustrative") or "") if isinstance(timing, dict) else ""


def _cells(a: float | None, b: float | None, scale: float) -> tuple[str, str, str, str]:
    values = _number(a, scale), _number(b, scale)
    if a is None or b is None:
        return *values, "", ""
    if a == b:
        return *values, "=", ""
    return *values, _number(b - a, scale, "+"), f"{100 * (b - a) / a:+.2f} %" if a else ""


def _number(value: float | None, scale: float, sign: str = "") -> str:
    if value is None:
        return "-"
    scaled = value * scale
    return f"{scaled:{sign},}" if isinstance(scaled, int) else f"{scaled:{sign},.3f}"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("emu compare", description=__doc__)
    parser.add_argument("run_a", type=Path, metavar="RUN_A")
    parser.add_argument("run_b", type=Path, metavar="RUN_B")
    arguments = parser.parse_args(argv)
    try:
        table = list(rows(arguments.run_a, arguments.run_b))
    except CompareError as error:
        print(f"emu compare: {error}", file=sys.stderr)
        return 2
    for line in illustrations(arguments.run_a, arguments.run_b):
        print(line)
    widths = [max(len(row[column]) for row in table) for column in range(5)]
    for name, *cells in table:
        aligned = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print("  ".join((name.ljust(widths[0]), *aligned)).rstrip())
    return 0
