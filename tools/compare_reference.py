#!/usr/bin/env python3
"""The compatible mode beside the published simulator, run by run of a table of its results (reference.csv).

Each row names what ran, such as bloom_conv70_HH25P15T (model, load, design), its trace, which is beside the table, and the
simulator's figures: TTFT, TBT and E2E at p50, p90, p99 and mean, milliseconds. TBT is its own, (E2E - TTFT) / output tokens.

    python tools/compare_reference.py [--reference F] [--json F] [RUN ...]

Exit code 1 if a figure differs by more than 0.1 %, or 2 % where machines joined the mixed pool.
"""

import argparse
import csv
import json
import os
import re
import sys
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH leaves it out
import hints  # noqa: F401  before what this Python may lack

import numpy as np
from rich.console import Console
from rich.table import Table

from emu.build import build, compose
from emu.results.columns import Columns

DATA = Path(os.environ.get("EMU_DATA", Path(__file__).parents[2] / "shared" / "data"))
MODELS = {"bloom-176b": "bloom_176b", "llama2-70b": "llama2_70b"}
METRICS = ("ttft", "tbt", "e2e")
STATISTICS = ("p50", "p90", "p99", "mean")
MAX_DIFFERENCE, MAX_DIFFERENCE_MIXED = 0.001, 0.02


def overrides_of(row: dict[str, str], folder: Path) -> list[str]:
    """The run that a row of the table stands for. Raises ValueError for a design it cannot name."""
    design = row["run"].rpartition("_")[2]
    if found := re.fullmatch(r"base([AH])(\d+)", design):
        kind, num_machines = found.groups()
        cluster = [f"cluster=baseline_{kind.lower()}100", f"cluster.num_machines={num_machines}"]
    elif found := re.fullmatch(r"(AA|HH|HA|HHcap)(\d+)P(\d+)T", design):
        kind, num_prompt, num_token = found.groups()
        sizes = [f"cluster.num_prompt={num_prompt}", f"cluster.num_token={num_token}"]
        cluster = [f"cluster=splitwise_{kind.lower()}", *sizes]
    else:
        raise ValueError(f"{row['run']}: no such design; expected a name that ends like baseH40 or HH25P15T")
    trace = folder / f"{row['trace']}.csv"
    workload = ["workload=trace", f"workload.path={trace}", "workload.duration_s=inf"]
    return ["experiment=splitwise_sim", *cluster, f"model={MODELS[row['model']]}", *workload]


def figures(columns: Columns) -> dict[str, dict[str, float]]:
    """Milliseconds by metric and statistic, of all requests."""
    requests = columns.requests
    ttft = 1000 * requests.ttft_s
    e2e = 1000 * requests.e2e_s
    values = {"ttft": ttft, "tbt": (e2e - ttft) / requests.output_tokens, "e2e": e2e}
    return {
        metric: dict(zip(STATISTICS, [*np.percentile(value, [50, 90, 99]).tolist(), float(value.mean())], strict=True))
        for metric, value in values.items()
    }


def compare(row: dict[str, str], folder: Path) -> dict:
    """Run what the row stands for and set its figures beside the reference's; `wall_s` is the run without its files."""
    plan = build(compose(overrides_of(row, folder)))
    start = perf_counter()
    record = plan.run()
    wall_s = perf_counter() - start
    columns = record.recorder.columns()
    ours = figures(columns)
    reference = {metric: {name: float(row[f"{metric}_ms_{name}"]) for name in STATISTICS} for metric in METRICS}
    differences = {
        metric: {name: ours[metric][name] / reference[metric][name] - 1 for name in STATISTICS} for metric in METRICS
    }
    return {
        "run": row["run"],
        "reference_ms": reference,
        "ours_ms": ours,
        "difference": differences,
        "max_difference": max(abs(value) for by_name in differences.values() for value in by_name.values()),
        "allowed": MAX_DIFFERENCE_MIXED if int(row["to_mixed"]) else MAX_DIFFERENCE,
        # All machines move to their home pool at time 0: for colocated ones that is the mixed pool.
        "to_mixed": int(((columns.pool_moves.pool == "mixed") & (columns.pool_moves.time_s > 0)).sum()),
        "requests": plan.num_requests,
        "unfinished": int(np.isnan(columns.requests.last_token_s).sum()),
        "wall_s": wall_s,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", metavar="RUN", help="rows of the table; all without any")
    parser.add_argument("--reference", type=Path, default=DATA / "splitwise_reference" / "reference.csv")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    try:
        with args.reference.open() as file:
            rows = {row["run"]: row for row in csv.DictReader(file)}
    except OSError as error:
        parser.error(f"--reference={args.reference}: {error.strerror}; or set EMU_DATA to the folder of the data")
    if unknown := set(args.runs) - set(rows):
        parser.error(f"{sorted(unknown)[0]}: no such run; there are {', '.join(rows)}")
    results = [compare(rows[run], args.reference.parent) for run in args.runs or rows]
    table = Table("run", "ms", *[f"{name}: simulator, here" for name in STATISTICS], "difference", "seconds", "requests/s")
    for result in results:
        for metric in METRICS:
            pairs = [(result["reference_ms"][metric][name], result["ours_ms"][metric][name]) for name in STATISTICS]
            worst = max(abs(value) for value in result["difference"][metric].values())
            run = [f"{result['wall_s']:.2f}", f"{result['requests'] / result['wall_s']:,.0f}"] if metric == "e2e" else ["", ""]
            cells = [f"{simulator:,.2f}  {here:,.2f}" for simulator, here in pairs]
            table.add_row(result["run"] if metric == "ttft" else "", metric.upper(), *cells, f"{100 * worst:.4f} %", *run)
    Console(width=None if sys.stdout.isatty() else 180).print(table)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    return int(any(result["unfinished"] or result["max_difference"] > result["allowed"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
