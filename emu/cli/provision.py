"""Find which machines to buy: for each design the (#prompt, #token) that is cheapest, takes least power or carries most.

    emu provision --minimize cost --rate 70 workload=splitwise_code
    emu provision --maximize throughput --max-power 70 --designs splitwise_hh,splitwise_ha workload=splitwise_conv

All within the nine SLOs. Settings beside the design, its size and the rate are overrides as `emu` takes them (model=, timing=,
experiment=splitwise_sim, ...). Results go to runs/provision/DATE/TIME/: provision.json, provision.html, and what was found as
experiments that `emu` runs. Each run is kept as it ends; the same command with --resume DIRECTORY goes on from there.
"""

import argparse
import os
import shlex
import sys
from concurrent.futures.process import BrokenProcessPool
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from emu.build import compose
from emu.config_error import ConfigError, explain
from emu.core.setting import SettingError
from emu.files import write_text
from emu.provisioning.design import DESIGNS, Design
from emu.provisioning.ledger import Key, ProbeLog, opened
from emu.provisioning.most import Rates
from emu.provisioning.page import illustrations, render
from emu.provisioning.probe import Demand, Probe
from emu.provisioning.question import COST, DEFAULT_MAX_MACHINES, MACHINES, POWER, THROUGHPUT, Caps
from emu.provisioning.search import Answer, Question, compared, search, winners
from emu.provisioning.winner import check_overrides, write_experiment
from emu.results.report.quantity import NONE, significant
from emu.results.sweep_table import write_json
from emu.runtime.interrupt import EXIT_CODE

CONSOLE = Console(highlight=False, soft_wrap=True, width=1000)  # a row is a line: let the terminal wrap it


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("emu provision", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = _refuse  # type: ignore[method-assign]  # as argparse documents it
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--minimize", choices=(COST, POWER, MACHINES), help="for the rate of --rate")
    wanted.add_argument("--maximize", choices=(THROUGHPUT,), help="within the caps")
    parser.add_argument("--rate", metavar="RPS[,RPS...]", help="requests/s that must be carried; each is searched for")
    parser.add_argument("--designs", metavar="NAME[,NAME...]", default=",".join(DESIGNS), help="default: %(default)s")
    parser.add_argument("--max-dollars-per-hour", type=float, default=float("inf"), metavar="USD")
    parser.add_argument("--max-power", default="inf", metavar="X", help="rated: in DGX-A100s (70), or in kW (455kW)")
    parser.add_argument("--max-machines", type=int, default=DEFAULT_MAX_MACHINES, metavar="N", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="must do with each of N, from seed= on (%(default)s)")
    parser.add_argument("--margin", type=float, default=0.0, metavar="X", help="room of each SLO: 0.05 is 5 %% (%(default)s)")
    parser.add_argument("--compare", action="append", default=[], metavar="DESIGN=SIZE", help="such as splitwise_hh=27P3T")
    parser.add_argument("--low-rps", type=float, default=1.0, help="of --maximize: the lowest rate looked at (%(default)s)")
    parser.add_argument("--high-rps", type=float, default=1000.0, help="of --maximize: the highest (%(default)s)")
    parser.add_argument("--tolerance", type=float, default=0.01, help="of --maximize: relative (%(default)s)")
    parser.add_argument("--full-grid", action="store_true", help="run every size within the caps instead of searching")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count(), metavar="N", help="for several designs or rates; default: one a core"
    )
    parser.add_argument("--resume", type=Path, metavar="DIRECTORY", help="go on with the search there")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    return parser.parse_intermixed_args(argv)


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; see --help")


def question_of(args: argparse.Namespace) -> Question:
    """What is asked, every part of it checked. Raises ConfigError, SettingError."""
    check_overrides(args.overrides)
    if (args.rate is None) == (args.minimize is not None):
        raise ConfigError(f"--rate {args.rate or ''}: expected with --minimize, and only there".replace(" :", ":"))
    if args.processes < 1:
        raise ConfigError(f"--processes {args.processes}: expected a whole number from 1")
    rates_rps = tuple(dict.fromkeys(_rate(text) for text in args.rate.split(","))) if args.rate else ()
    rates = Rates(args.low_rps, args.high_rps, args.tolerance)
    caps = Caps(args.max_dollars_per_hour, _relative_power(args.max_power, args.overrides), args.max_machines)
    names = dict.fromkeys(args.designs.split(","))
    designs = tuple(Design.of(name, args.overrides, min(rates_rps, default=rates.low_rps)) for name in names)
    first_seed = compose(designs[0].overrides(designs[0].smallest)).seed
    demand = Demand.of(first_seed, args.seeds, args.margin)
    sizes = compared(args.compare, designs)
    return Question(args.minimize or args.maximize, designs, caps, rates_rps, rates, sizes, args.full_grid, demand)


def _rate(text: str) -> float:
    try:
        rate_rps = float(text)
    except ValueError:
        rate_rps = 0.0
    if not 0 < rate_rps < float("inf"):
        raise ConfigError(f"--rate {text}: expected a number > 0, or several with commas")
    return rate_rps


def _relative_power(text: str, overrides: list[str]) -> float:
    number = text.lower().removesuffix("kw")
    try:
        power = float(number)
    except ValueError:
        raise ConfigError(f"--max-power {text}: expected a number of DGX-A100s such as 70, or of kW such as 455kW") from None
    if number == text.lower():
        return power
    others = [override for override in overrides if not override.startswith("power=")]
    return power * 1e3 / compose([*others, "power=rated"]).power.base_w


def show_run(key: Key, probe: Probe) -> None:
    result = "carries it" if probe.met else "does not"
    reasons = "" if probe.met else f": {', '.join(probe.reasons[:3])}"
    rate = f"{significant(key.rate_rps)} requests/s"
    line = f"{key.design} {key.size} at {rate} {result}, {probe.tightest or NONE}{reasons}; {probe.wall_s:.1f} s"
    CONSOLE.print(line, markup=False, style="" if probe.met else "dim")


def table_of(answers: list[Answer], best: list[Answer]) -> Table:
    table = Table("design", "size", box=None, pad_edge=False)
    for name in ("machines", "$/h", "x DGX-A100", "kW", "requests/s", "offered/s", "completed/s", "tightest SLO", ""):
        table.add_column(name, justify="left" if name in ("tightest SLO", "") else "right")
    for answer in answers:
        mark = "compared" if answer.is_compared else "best" if answer in best else ""
        if answer.best is None:
            rate = "" if answer.rate_rps is None else significant(answer.rate_rps)
            table.add_row(answer.design.name, "none", *[""] * 4, rate, *[""] * 3, "no size within the caps carries it")
            continue
        size, probe = answer.best.size, answer.best.probe
        assert probe.mean_power_w is not None  # a run that met its objectives has one
        takes = (probe.dollars_per_hour, probe.relative_power, probe.mean_power_w / 1e3)
        figures = map(significant, (*takes, probe.rate_rps, probe.offered_rps, probe.completed_rps))
        outcome = mark if probe.met else f"{mark}: {', '.join(probe.reasons)}"
        row = (str(size), str(probe.num_machines), *figures, probe.tightest or NONE, outcome)
        table.add_row(answer.design.name, *row, style="bold" if mark == "best" else "")
    return table


def write_answers(directory: Path, question: Question, ledger: ProbeLog, answers: list[Answer], elapsed_s: float) -> dict:
    """Write provision.json, provision.html and the experiments; return what ran. Raises OSError."""
    best = winners(question, answers)
    runs = dict(sorted(ledger.probes.items()))
    host = {
        "num_runs": len(runs),
        "num_found_at_start": ledger.num_found,
        "run_wall_s": sum(probe.wall_s for probe in runs.values()),
        "elapsed_s": elapsed_s,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    answers_json = [answer.as_json() | {"best": answer in best} for answer in answers]
    probes = [{"design": key.design, "size": str(key.size), **probe.as_json()} for key, probe in runs.items()]
    for probe in probes:
        del probe["wall_s"]
    content = {"question": question.as_json(), "answers": answers_json, "probes": probes, "host": host}
    write_json(content, directory / "provision.json")
    write_text(render(question, runs, answers, best), directory / "provision.html")
    for answer in answers:
        if answer.best is not None and not answer.is_compared:
            found = f"{answer.design.name} {answer.best.size} for {answer.best.probe.rate_rps:g} requests/s"
            overrides = [*answer.design.overrides(answer.best.size), f"workload.rate_rps={answer.best.probe.rate_rps}"]
            if len(question.demand.seeds) > 1:
                overrides.append(f"seed={answer.best.probe.seed}")  # the one with the least room
            comment = f"{found}: least {question.objective}" if question.rates_rps else f"{found}: highest throughput"
            path = directory / "conf" / "experiment" / f"{experiment_of(answer)}.yaml"
            write_experiment(path, ["runtime=virtual", *overrides], f"{comment} within the SLOs and at most {question.caps}.")
    return host


def experiment_of(answer: Answer) -> str:
    rate = "" if answer.rate_rps is None else f"_{answer.rate_rps:g}rps".replace(".", "_")
    return f"found_{answer.design.name}{rate}"


def provision(args: argparse.Namespace, argv: list[str]) -> int:
    started = perf_counter()
    question = question_of(args)
    directory = (args.resume or Path("runs/provision") / datetime.now().strftime("%Y-%m-%d/%H-%M-%S-%f")).absolute()
    command = [word for word in argv if not word.startswith("--resume") and word != str(args.resume)]
    resume = f"to resume: emu provision {shlex.join([*command, '--resume', str(directory)])}"
    with opened(directory, question.as_json(), resumes=args.resume is not None) as ledger:
        CONSOLE.print(f"search: {directory}, {ledger.num_found} runs there already\n{resume}", markup=False)
        try:
            answers = search(question, ledger, args.processes, show_run)
        except KeyboardInterrupt:
            print(f"emu provision: interrupted; {len(ledger.probes)} runs are kept; {resume}", file=sys.stderr)
            return EXIT_CODE
        except BrokenProcessPool:
            print(
                f"emu provision: a process of the search was killed; {len(ledger.probes)} runs are kept; {resume}",
                file=sys.stderr,
            )
            return 1
        host = write_answers(directory, question, ledger, answers, perf_counter() - started)
    best = winners(question, answers)
    CONSOLE.print(table_of(answers, best))
    seconds = f"{host['run_wall_s']:.1f} s of running, {host['elapsed_s']:.1f} s here"
    CONSOLE.print(f"{host['num_runs']} runs, {host['num_found_at_start']} of them found there; {seconds}", markup=False)
    for line in illustrations(ledger.probes.values()):
        CONSOLE.print(f"ILLUSTRATIVE: {line}", markup=False)
    for answer in best:
        CONSOLE.print(f"run it: emu --config-dir {directory / 'conf'} experiment={experiment_of(answer)}", markup=False)
    CONSOLE.print(f"page: {directory / 'provision.html'}", markup=False)
    return int(not best)


def main(argv: list[str]) -> int:
    try:
        return provision(arguments(argv), argv)
    except (ConfigError, SettingError) as error:
        print(f"emu provision: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"emu provision: {explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("emu provision: interrupted", file=sys.stderr)
        return EXIT_CODE
