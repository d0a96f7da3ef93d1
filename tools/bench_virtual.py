#!/usr/bin/env python3
"""Requests a second of the virtual runtime: 40 machines, 25 prompt and 15 token, on a 2-minute trace at 70 requests/s.

Each run is a whole one, from the first event to the last file written (event log off), in one warm process. The baseline in
the same process is step-by-step execution, which decides and times everything the same.

    python tools/bench_virtual.py [--trace F] [--runs 5] [--json F]
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from emu.__main__ import write_results
from emu.build import build, compose

DATA = Path(os.environ.get("EMU_DATA", Path(__file__).parents[2] / "shared" / "data"))
CLUSTER = ["runtime=virtual", "cluster=splitwise_hh", "cluster.num_prompt=25", "cluster.num_token=15"]
VARIANTS = {"coalesced": [], "step by step": ["runtime.max_num_steps=1"]}


def measure(overrides: list[str], num_runs: int) -> dict:
    """Run `num_runs` times after one to warm up; requests/s of each, and what ran."""
    rates = []
    for _ in range(num_runs + 1):
        plan = build(compose(overrides))
        with tempfile.TemporaryDirectory() as folder:
            record = plan.runtime.run(plan.rehearse(run_dir=Path(folder), log_events=False))
            summary = write_results(plan, record, Path(folder), overrides, {})
        rates.append(plan.num_requests / summary["host"]["wall_s"])
    return {
        "requests_per_s": rates[1:],
        "requests": plan.num_requests,
        "events": summary["events"],
        "verdict": summary["verdict"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trace", type=Path, default=DATA / "splitwise_reference" / "rr_conv_70_2min.csv")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    trace = ["workload=trace", f"workload.path={args.trace}", "workload.duration_s=inf"]
    rows = {name: measure([*CLUSTER, *trace, *overrides], args.runs) for name, overrides in VARIANTS.items()}
    baseline = median(rows["step by step"]["requests_per_s"])
    table = Table("execution", "events", "requests/s", "min", "max", "ratio", "verdict")
    for name, row in rows.items():
        rates = row["requests_per_s"]
        row["ratio"] = median(rates) / baseline
        figures = [f"{rate:,.0f}" for rate in (median(rates), min(rates), max(rates))]
        table.add_row(name, f"{row['events']:,}", *figures, f"{row['ratio']:.2f}", row["verdict"])
    Console().print(f"{args.trace.name}: {row['requests']:,} requests, median of {args.runs} runs", table, sep="\n")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
