#!/usr/bin/env python3
"""At which dilation, and up to which rate, all bytes of the KV caches keep up with the links that are emulated.

One prompt and one token machine (DGX-H100), Llama2-70B, the prompts of Azure's conversation service with two output tokens
each, transfer.payload_scale=1: 320 KiB really move for each token. For each link the first run goes at the dilation that emu
proposes (runtime.dilation=auto) from what it measures when it starts, at the highest rate; lower rates follow until no transfer
overruns (is verified more than verdict.late_s, 5 ms of emulated time, after its end by the model) and the verdict is VALID.
Then come the given dilations at the rate that kept up, and the proposed one once more with serialized hand-overs. The second
table has what the ledger shows of each run after the end of the prefill, beside two layers' worth of the mean KV cache on
that link and its latency. Each row is a run of `emu` in a process of its own. With so few steps, one of them is a large share:
the rule on steps outside the profiled range is off.

    python tools/bench_payload.py [--transfer nixl] [--links 50,400] [--rates 8,6,4,2,1] [--dilations 1,5,20,100]
        [--requests 10] [--json F]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH leaves it out
import hints  # noqa: F401  before what this Python may lack

from rich.console import Console
from rich.table import Table

from emu.build import compose, plain
from emu.workload.empirical import Empirical

COLUMNS = (
    "link GB/s",
    "req/s",
    "dilation",
    "plan",
    "verdict",
    "overruns",
    "GB moved",
    "real ms p50",
    "p99",
    "link ms p50",
    "late p99 ms",
    "wall s",
)
VISIBLE = ("hold", "reserve", "queue", "wire", "verify", "activate")
OUTPUT_TOKENS = 2
CONFIG = plain(compose([]))


class Trial(NamedTuple):
    """One run, and its summary."""

    link_gb_per_s: float
    rate_rps: float
    asked_dilation: str
    plan: str
    summary: dict[str, Any]

    @property
    def keeps_up(self) -> bool:
        return self.summary["verdict"] == "VALID" and not self.summary["kv"]["overruns"]


def write_trace(path: Path, rate_rps: float, num_requests: int) -> None:
    """`num_requests` of the conversation service's prompts at even intervals."""
    workload = Empirical("azure_conv", rate_rps, num_requests / rate_rps, "constant", 1).build(seed=0)
    rows = [f"{arrival_s:.6f},{prompt},{OUTPUT_TOKENS}" for arrival_s, prompt, _ in workload.rows()]
    path.write_text("\n".join(["arrival_timestamp,prompt_size,token_size", *rows]) + "\n")


def run_once(transfer: str, link_gb_per_s: float, rate_rps: float, dilation: str, plan: str, num_requests: int) -> Trial:
    """Raises SystemExit with what `emu` printed where it failed."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.csv"
        write_trace(trace, rate_rps, num_requests)
        nic = f"nic_bytes_per_s={link_gb_per_s * 1e9:g}"
        overrides = [f"transfer={transfer}", "transfer.payload_scale=1", f"runtime.dilation={dilation}"]
        overrides += ["cluster.num_prompt=1", "cluster.num_token=1", "workload=trace", f"workload.path={trace}"]
        overrides += [f"cluster.prompt_hardware.{nic}", f"cluster.token_hardware.{nic}"]
        overrides += ["results.report=false", "verdict.extrapolated_share=1", f"hydra.run.dir={folder}/run"]
        overrides += ["transfer.layerwise_min_tokens=" + {"layerwise": "1", "serialized": "inf"}[plan]]
        done = subprocess.run([sys.executable, "-P", "-m", "emu", *overrides], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        return Trial(link_gb_per_s, rate_rps, dilation, plan, json.loads((Path(folder) / "run/summary.json").read_text()))


def row_of(trial: Trial) -> list[str]:
    summary = trial.summary
    kv, payload, host = summary["kv"], summary["handover"]["payload"], summary["host"]
    proposed = " (proposed)" if trial.asked_dilation == "auto" else ""
    ms = [1e3 * value for value in (payload["wire_s"]["p50"], payload["wire_s"]["p99"], payload["link_s"]["p50"])]
    return [
        f"{trial.link_gb_per_s:g}",
        f"{trial.rate_rps:g}",
        f"{host['dilation']:g}{proposed}",
        trial.plan,
        summary["verdict"],
        f"{kv['overruns']} of {kv['transfers']}",
        f"{kv['bytes_moved'] / 1e9:.2f}",
        *[f"{value:.2f}" for value in ms],
        f"{1e3 * summary['late']['messages']['p99']:.2f}",
        f"{host['wall_s']:.0f}",
    ]


def visible_row(trial: Trial) -> list[str]:
    """What of a hand-over comes after its prefill: the mean of each span and, last, their p99s together."""
    figures, kv = trial.summary["handover"]["plan"][trial.plan], trial.summary["kv"]
    spans = [figures["span_s"][name] for name in VISIBLE]
    layer_s = kv["bytes_modelled"] / kv["transfers"] / CONFIG["model"]["num_layers"] / (trial.link_gb_per_s * 1e9)
    values = [*[span["mean"] for span in spans], sum(span["mean"] for span in spans), sum(span["p99"] for span in spans)]
    values.append(2 * layer_s + CONFIG["cluster"]["prompt_hardware"]["link_latency_s"])
    return [
        f"{trial.link_gb_per_s:g}",
        f"{trial.summary['host']['dilation']:g}",
        trial.plan,
        *[f"{1e3 * value:.3f}" for value in values],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transfer", default="nixl")
    parser.add_argument("--links", default="50,400", help="GB/s of each machine's NIC")
    parser.add_argument("--rates", default="8,6,4,2,1", help="requests/s, the highest first")
    parser.add_argument("--dilations", default="1,5,20,100")
    parser.add_argument("--requests", type=int, default=10)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    console, table, trials = Console(width=160), Table(*COLUMNS), []
    visible = Table(
        "link GB/s", "dilation", "plan", *(f"{name} ms" for name in VISIBLE), "all", "p99s", "two layers and latency"
    )

    def run(link: float, rate_rps: float, dilation: str, plan: str = "layerwise") -> Trial:
        trial = run_once(args.transfer, link, rate_rps, dilation, plan, args.requests)
        row = row_of(trial)
        table.add_row(*row)
        console.print("  ".join(row), *trial.summary["verdict_reasons"], sep="\n    ")
        visible.add_row(*visible_row(trial))
        trials.append(trial)
        return trial

    answers = []
    for link in map(float, args.links.split(",")):
        rates = [float(rate) for rate in args.rates.split(",")]
        held = next((trial for rate_rps in rates if (trial := run(link, rate_rps, "auto")).keeps_up), None)
        rate_rps = rates[-1] if held is None else held.rate_rps
        run(link, rate_rps, f"{trials[-1].summary['host']['dilation']:g}", "serialized")
        for dilation in args.dilations.split(","):
            run(link, rate_rps, dilation)
        answers.append(
            f"{link:g} GB/s: real bytes keep up with {rate_rps:g} requests/s at dilation {held.summary['host']['dilation']:g}"
            if held
            else f"{link:g} GB/s: real bytes keep up with none of these rates at the dilation proposed"
        )
    console.print(table, visible)
    console.print(*answers, sep="\n")
    if args.json:
        args.json.write_text(json.dumps([trial._asdict() for trial in trials], indent=2))


if __name__ == "__main__":
    main()
