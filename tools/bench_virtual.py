#!/usr/bin/env python3
"""Requests a second of the virtual runtime: 40 machines, two minutes of conversation requests.

Each run is a whole one, from the first event to the last file written (event log and HTML report off), in one warm process.
The baseline beside it is step-by-step execution, which decides and times everything the same. `--scale` runs 1,000 machines
at 2,500 requests/s for ten emulated minutes, and the same load a machine on 40, each in a process of its own. Rates are by the
wall clock; the CPU time of this process, which others on the machine disturb less, stands beside them. Where tools/compile.py
has compiled these sources, that package is measured as well, in a process of its own.

    python tools/bench_virtual.py [--scale] [--runs 5] [--json F]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import process_time

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH leaves it out
import hints  # noqa: F401  before what this Python may lack

from compile import COMPILED, is_current
from rich.console import Console
from rich.table import Table

from emu.build import build, compose
from emu.rehearse import write_results

DATA = Path(os.environ.get("EMU_DATA", Path(__file__).parents[2] / "shared" / "data"))
TRACE = DATA / "splitwise_reference" / "rr_conv_70_2min.csv"
CLUSTER = ["runtime=virtual", "cluster=splitwise_hh", "results.report=false"]


def split(num_prompt: int, num_token: int) -> list[str]:
    return [f"cluster.num_prompt={num_prompt}", f"cluster.num_token={num_token}"]


def conversation(rate_rps: float, duration_s: float) -> list[str]:
    return ["workload=azure_conv", f"workload.rate_rps={rate_rps}", f"workload.duration_s={duration_s}"]


# The paper's split, which at 130 requests/s decodes in batches beyond the profile (INVALID: its times are extrapolated), and
# one that stays within it but puts several prompts into a step.
LOADS = {
    TRACE.name: [*split(25, 15), "workload=trace", f"workload.path={TRACE}", "workload.duration_s=inf"],
    "conversation at 130/s": [*split(25, 15), *conversation(130, 120)],
    "the same, 13 + 27": [*split(13, 27), *conversation(130, 120)],
}
SCALES = {40: [*split(16, 24), *conversation(100, 600)], 1000: [*split(400, 600), *conversation(2500, 600)]}
VARIANTS = {"coalesced": [], "step by step": ["runtime.max_num_steps=1"]}


def run_once(overrides: list[str]) -> dict:
    """How long it took, and what ran."""
    plan = build(compose(overrides))
    with tempfile.TemporaryDirectory() as folder:
        started_s = process_time()
        record = plan.run(run_dir=Path(folder), log_events=False)
        summary = write_results(plan, record, Path(folder), overrides, {})
        cpu_s = process_time() - started_s
    return {
        "requests": plan.num_requests,
        "events": summary["events"],
        "wall_s": summary["host"]["wall_s"],
        "cpu_us_a_request": 1e6 * cpu_s / plan.num_requests,
        "verdict": summary["verdict"],
    }


def measure(overrides: list[str], num_runs: int) -> dict:
    """Run `num_runs` times after one to warm up; the last run with the figures of all."""
    runs = [run_once(overrides) for _ in range(num_runs + 1)][1:]
    rates = [run["requests"] / run["wall_s"] for run in runs]
    return runs[-1] | {"requests_per_s": rates, "cpu_us_a_request": median(run["cpu_us_a_request"] for run in runs)}


def in_process(arguments: list[str], **variables: str) -> dict:
    """What this program prints for `arguments`, in a process of its own with these variables in its environment."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ | variables)
    return json.loads(done.stdout)


def measure_compiled(overrides: list[str], num_runs: int) -> dict:
    return in_process(["--measure", json.dumps(overrides), "--runs", str(num_runs)], PYTHONPATH=str(COMPILED))


def once(overrides: list[str]) -> None:
    row = run_once(overrides)
    print(json.dumps(row | {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def bench_rates(num_runs: int) -> list[dict]:
    names = ("load", "execution", "requests", "events", "requests/s", "min", "max", "CPU µs each", "ratio", "verdict")
    table, rows = Table(*names), []
    is_compiled = is_current(COMPILED)
    for load, workload in LOADS.items():
        variants = {name: measure([*CLUSTER, *workload, *limit], num_runs) for name, limit in VARIANTS.items()}
        if is_compiled:
            variants["compiled"] = measure_compiled([*CLUSTER, *workload], num_runs)
        baseline = median(variants["step by step"]["requests_per_s"])
        for name, row in variants.items():
            rates = row["requests_per_s"]
            row |= {"load": load, "execution": name, "ratio": median(rates) / baseline}
            figures = [f"{rate:,.0f}" for rate in (median(rates), min(rates), max(rates))]
            counts = (f"{row['requests']:,}", f"{row['events']:,}")
            figures += [f"{row['cpu_us_a_request']:.1f}", f"{row['ratio']:.2f}"]
            table.add_row(load, name, *counts, *figures, row["verdict"])
            rows.append(row)
    hint = "" if is_compiled else "python tools/compile.py adds what the compiled package does"
    Console(width=132).print(f"40 machines, median of {num_runs} runs", table, hint, sep="\n")
    return rows


def bench_scale() -> list[dict]:
    table = Table("machines", "requests", "s", "CPU µs each", "peak memory", "verdict")
    rows = [{"machines": num} | in_process(["--once", json.dumps([*CLUSTER, *load])]) for num, load in SCALES.items()]
    for row in rows:
        figures = (f"{row['wall_s']:.1f}", f"{row['cpu_us_a_request']:.1f}", f"{row['peak_bytes'] / 1e9:.2f} GB")
        table.add_row(f"{row['machines']:,}", f"{row['requests']:,}", *figures, row["verdict"])
    Console(width=132).print("ten emulated minutes, one run each in a process of its own", table, sep="\n")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", action="store_true", help="1,000 machines against 40 instead")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--once", help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        once(json.loads(args.once))
        return 0
    if args.measure:
        print(json.dumps(measure(json.loads(args.measure), args.runs)))
        return 0
    if not TRACE.is_file():
        print(f"bench_virtual: {TRACE}: No such file; set EMU_DATA to the folder of the data", file=sys.stderr)
        return 2
    rows = bench_scale() if args.scale else bench_rates(args.runs)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
