"""Print the runs of a sweep as a table, and write a page of its curves: `emu report SWEEP_DIR`.

The page is SWEEP_DIR/report.html: TTFT, TBT and E2E at p50, p90 and p99 against the load, a line a design, their slowdowns with
the objectives, throughput, cost and energy. Runs that failed, are INVALID or SATURATED are shown, marked, and never compared;
ILLUSTRATIVE ones have curves of their own.
A sweep that goes on, or was killed, is shown as far as it is.
"""

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from emu.files import write_text
from emu.results.report.quantity import count, duration
from emu.results.report.sweep import METRICS, render_sweep
from emu.results.sweep_curves import SweepError, curves_of, illustrations, load_of, settings_of
from emu.results.sweep_table import (
    FAILURE,
    SUMMARY,
    SWEEP,
    is_sweep,
    is_usable,
    outcome,
    p99_mark_of,
    read_json,
    reasons_of,
    sweep_rows,
)

STYLES = {"VALID": "green", "ILLUSTRATIVE": "cyan", "DEGRADED": "yellow", "SATURATED": "yellow"}


def run_table(rows: list[dict]) -> Table:
    """A row a run: what varies, how it ended, its main figures, and reasons; times as they are read best."""
    settings = settings_of(rows)
    latencies = [(name, metric, statistic) for name, metric in METRICS for statistic in ("p50", "p99")]
    table = Table("run", *settings, "outcome", box=None, pad_edge=False)
    for name in (*(f"{name} {statistic}" for name, _, statistic in latencies), "offered/s", "completed/s", "SLOs"):
        table.add_column(name, justify="right")
    table.add_column("reasons")
    for row in rows:
        met = {True: "met", False: "missed", None: "-"}[row.get("slo.met")]
        figures = [
            duration(row.get(f"{metric}_s.{statistic}")) + p99_mark_of(row, statistic) for _, metric, statistic in latencies
        ]
        table.add_row(
            str(row["run"]),
            *(str(row[name]) for name in settings),
            Text(outcome(row), style=STYLES.get(outcome(row), "red")),
            *figures,
            count(row.get("offered_rps")),
            count(row.get("completed_rps")),
            met,
            Text(reasons_of(row)),
            style="" if is_usable(row) else "dim",
        )
    return table


def page_of(run_dir: Path, start: Path) -> dict[str, str]:
    """The run's page, or the file that says how it ended, relative to `start`; nothing where there is none."""
    files = (run_dir / name for name in ("report.html", SUMMARY, FAILURE))
    return next(({"page": os.path.relpath(file, start)} for file in files if file.exists()), {})


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("emu report", description=__doc__.splitlines()[0])
    parser.add_argument("sweep_dir", type=Path, metavar="SWEEP_DIR")
    parser.add_argument("--load", metavar="KEY", help="the setting on the horizontal axis (default: the rate)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the page (default: SWEEP_DIR/report.html)")
    arguments = parser.parse_args(argv)
    directory, output = arguments.sweep_dir, arguments.output or arguments.sweep_dir / "report.html"
    try:
        if not is_sweep(read_json(directory / SWEEP)):
            raise SweepError(f"{directory / SWEEP}: no such sweep; expected the directory that emu -m printed")
        rows = sweep_rows(directory)
        rows = [row | page_of(directory / str(row["run"]), output.parent) for row in rows]
        load = load_of(rows, arguments.load)
        write_text(render_sweep(rows, f"Sweep {directory.absolute().name}", load), output)
    except (SweepError, OSError) as error:
        print(f"emu report: {error}", file=sys.stderr)
        return 2
    console = Console(highlight=False, soft_wrap=True, width=1000)  # a row is a line: let the terminal wrap it
    console.print(run_table(rows))
    for line in illustrations(rows):
        console.print(f"ILLUSTRATIVE: {line}", markup=False)
    for curve in curves_of(rows, load) if load else []:
        console.print(f"highest {load} within all objectives: {curve.highest_load_text}  {curve.name}", markup=False)
    console.print(f"page: {output}", markup=False)
    return 0
