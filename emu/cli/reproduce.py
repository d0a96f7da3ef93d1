"""Measure the paper's claims: `emu reproduce`, some 10 minutes on two cores.

Prints each claim with the paper's number beside that of the compatible mode and of the calibrated timing, and leaves
report.html (its figures, and why the numbers differ) and claims.json in the output directory. Killed, it goes on where it was:
what has been run stays in `runs/` there. `--claim` measures one of them, `--quick` three of them briefly, to see that it works.
"""

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter

from joblib import Parallel, delayed
from rich.console import Console
from rich.table import Table

from emu.compat.splitwise_sim.timing import PROVENANCE
from emu.config_error import ConfigError
from emu.files import write_text
from emu.reproduction.claims import BY_NAME, CLAIMS
from emu.reproduction.figures import shown_capacities
from emu.reproduction.finding import Finding, written
from emu.reproduction.lab import COMPATIBLE, QUICK, Lab, LabEffort, PaperCluster
from emu.reproduction.page import COLUMNS, HEADINGS, render

MODELS = ("bloom_176b", "llama2_70b")
QUICK_NOTE = "; far too short for results: this only shows that it works"
NO_RESULTS = "--quick: the figures below are no results: runs of {duration_s:g} s only show that it works; measure without it"
QUICK_CLAIMS = ("1.4x-at-20%-lower-cost", "batch-jobs", "layer-wise")


def measure_capacity(lab: Lab, cluster: PaperCluster, mode: str) -> None:
    lab.capacity(cluster, mode)


def measure_claim(lab: Lab, name: str) -> None:
    BY_NAME[name].measure(lab)


def tasks(lab: Lab, names: list[str], has_page: bool) -> list:
    """What can be measured at the same time: then every claim finds its runs there."""
    capacities = [pair for name in names for pair in BY_NAME[name].capacities()]
    capacities += shown_capacities() if has_page else []
    others = [name for name in names if not list(BY_NAME[name].capacities())]
    return [
        *(delayed(measure_claim)(lab, name) for name in others),
        *(delayed(measure_capacity)(lab, *pair) for pair in dict.fromkeys(capacities)),
    ]


def findings_of(lab: Lab, names: list[str], has_page: bool, num_jobs: int) -> list[Finding]:
    waiting = tasks(lab, names, has_page)
    start = perf_counter()
    for number, _ in enumerate(Parallel(n_jobs=num_jobs, return_as="generator_unordered")(waiting), 1):
        print(f"measured {number} of {len(waiting)} in {perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return [BY_NAME[name].measure(lab) for name in names]


def table_of(finding: Finding) -> Table:
    columns = [column for column in COLUMNS if any(column in figure.values for figure in finding.figures)]
    table = Table(title=f"{finding.name} ({finding.where})", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for name in ("paper", *(HEADINGS[column] for column in columns)):
        table.add_column(name, justify="right")
    for figure in finding.figures:
        values = (written(figure.values.get(column), figure.kind) for column in columns)
        table.add_row(figure.what, written(figure.paper, figure.kind), *values)
    return table


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("emu reproduce", description=__doc__.splitlines()[0])
    known = ", ".join(BY_NAME).replace("%", "%%")  # which argparse would format
    parser.add_argument("--claim", action="append", choices=list(BY_NAME), metavar="NAME", help=known)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0], help="the paper sizes its clusters for BLOOM-176B")
    parser.add_argument("--quick", action="store_true", help="a few claims, short runs and coarse rates")
    parser.add_argument("--jobs", type=int, default=-1, help="processes; -1 is one a core")
    parser.add_argument("--output", type=Path, default=Path("runs/reproduction"), metavar="DIR")
    arguments = parser.parse_args(argv)
    start = perf_counter()
    effort = QUICK if arguments.quick else LabEffort()
    names = arguments.claim or (list(QUICK_CLAIMS) if arguments.quick else [claim.name for claim in CLAIMS])
    has_charts = not (arguments.claim or arguments.quick)
    lab = Lab(arguments.output / "runs", arguments.model, effort)
    try:
        findings = findings_of(lab, names, has_charts, arguments.jobs)
        facts = {
            "model": f"{arguments.model} (the paper's clusters are meant for BLOOM-176B: §VI-D)",
            "runs": f"{effort.duration_s:g} s of Poisson arrivals, seed 0{QUICK_NOTE if arguments.quick else ''}",
        }
        page = arguments.output / "report.html"
        write_text(render(findings, lab if has_charts else None, facts), page)
        results = {"model": arguments.model, "claims": [finding.as_json() for finding in findings]}
        write_text(json.dumps(results, indent=1) + "\n", arguments.output / "claims.json")
    except (ConfigError, OSError) as error:
        print(f"emu reproduce: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"emu reproduce: interrupted; the same command goes on, with --output {arguments.output}", file=sys.stderr)
        return 130
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 180)
    if arguments.quick:
        console.print(NO_RESULTS.format(duration_s=effort.duration_s), style="bold yellow", markup=False)
    for finding in findings:
        console.print(table_of(finding))
        console.print()
    console.print(f"{HEADINGS[COMPATIBLE]} is ILLUSTRATIVE: {PROVENANCE.why_illustrative()}", markup=False)
    console.print(f"page: {page}; {perf_counter() - start:.0f} s", markup=False)
    return 0
