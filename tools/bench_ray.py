#!/usr/bin/env python3
"""How large a cluster, at which rate, this host rehearses in real time: dilation 1, Llama2-70B, conversation, 60 s.

Each row is a run of `emu` in a process of its own. For each size the rates are tried in order, up to the first whose verdict is
not VALID; the largest that held is the answer. Other work on the host shows up in the verdict. The question is whether the host
keeps up, so the rule on steps outside the profiled range is off: above 64 decodes a batch, which 100 requests/s on 15 token
machines reach, the timing is extrapolated.

    python tools/bench_ray.py [--sizes 25+15,50+30] [--rates 50,100,150,200] [--runs 1] [--duration 60] [--json F]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH leaves it out
import hints  # noqa: F401  before what this Python may lack

from rich.console import Console
from rich.table import Table

COLUMNS = (
    "size",
    "rps",
    "run",
    "verdict",
    "late p99",
    "max",
    "wake p99",
    "cores",
    "others",
    "scale",
    "set-up",
)


def run_once(num_prompt: int, num_token: int, rate_rps: float, duration_s: float) -> dict:
    """One run's summary. Raises SystemExit with what `emu` printed where it failed."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            "verdict.extrapolated_share=1",
            f"cluster.num_prompt={num_prompt}",
            f"cluster.num_token={num_token}",
            "results.report=false",
        ]
        overrides += [f"workload.rate_rps={rate_rps}", f"workload.duration_s={duration_s}", f"hydra.run.dir={folder}/run"]
        done = subprocess.run([sys.executable, "-P", "-m", "emu", *overrides], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        return json.loads((Path(folder) / "run" / "summary.json").read_text())


def row_of(size: str, rate_rps: float, number: int, summary: dict) -> list[str]:
    host, late = summary["host"], summary["late"]
    ms = [f"{1e3 * value:.1f} ms" for value in (late["messages"]["p99"], late["messages"]["max"], late["wakeups"]["p99"])]
    cores = [f"{host['ray']['own_cores']:.2f}", f"{host['foreign_cores']:.2f}"]
    set_up = f"{host['ray']['set_up_s']:.0f} s"
    return [
        size,
        f"{rate_rps:g}",
        str(number),
        summary["verdict"],
        *ms,
        *cores,
        f"1/{1 / summary['kv']['payload_scale']:g}",
        set_up,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="25+15,50+30")
    parser.add_argument("--rates", default="50,100,150,200")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--duration", type=float, default=60)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    table, summaries, held = Table(*COLUMNS), [], {}
    console = Console()
    for size in args.sizes.split(","):
        num_prompt, num_token = map(int, size.split("+"))
        for rate_rps in map(float, args.rates.split(",")):
            batch = [run_once(num_prompt, num_token, rate_rps, args.duration) for _ in range(args.runs)]
            for number, summary in enumerate(batch, start=1):
                row = row_of(size, rate_rps, number, summary)
                table.add_row(*row)
                console.print("  ".join(row), *summary["verdict_reasons"], sep="\n    ")
            summaries += [{"size": size, "rate_rps": rate_rps, **summary} for summary in batch]
            if any(summary["verdict"] != "VALID" for summary in batch):
                break
            held[size] = rate_rps
    console.print(table)
    for size, rate_rps in held.items():
        console.print(f"{size} machines: VALID up to {rate_rps:g} requests/s")
    if args.json:
        args.json.write_text(json.dumps(summaries, indent=2))


if __name__ == "__main__":
    main()
