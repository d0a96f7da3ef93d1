"""A whole search: for each design and rate the size that is asked for, each run made once and kept."""

import json
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import xxhash

from emu.build import compose, plain
from emu.config_error import ConfigError
from emu.install import versions
from emu.provisioning import least, most
from emu.provisioning.design import Design, Size
from emu.provisioning.goodput import bisect
from emu.provisioning.least import Best, Run
from emu.provisioning.ledger import Key, ProbeLog
from emu.provisioning.most import Rates
from emu.provisioning.probe import ANY, Demand, Probe
from emu.provisioning.question import THROUGHPUT, Caps
from emu.provisioning.workers import Execute, workers
from emu.sweeps.plan import code_digest

OnRun = Callable[[Key, Probe], None]


@dataclass(frozen=True, slots=True)
class Question:
    """The least `objective` (`cost`, `power`, `machines`) for each of `rates_rps`, or with `throughput` the highest of `rates`.

    `compared` are sizes to set beside what is found, by the name of their design.
    """

    objective: str
    designs: tuple[Design, ...]
    caps: Caps
    rates_rps: tuple[float, ...]
    rates: Rates
    compared: tuple[tuple[str, Size], ...]
    is_full_grid: bool
    demand: Demand = ANY

    def __post_init__(self) -> None:
        for design in self.designs:
            self.caps.check(design)

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:g}" for rate in self.rates_rps)
        return "highest throughput" if self.objective == THROUGHPUT else f"least {self.objective} for {rates} requests/s"

    def as_json(self) -> dict[str, Any]:
        """What decides the answers: equal questions have equal ones."""
        configs = {design.name: plain(compose(design.overrides(design.smallest))) for design in self.designs}
        return {
            "objective": self.objective,
            "designs": [design.name for design in self.designs],
            "caps": str(self.caps),
            "rates_rps": list(self.rates_rps),
            "searched_rates": [self.rates.low_rps, self.rates.high_rps, self.rates.tolerance],
            "compared": [f"{name}={size}" for name, size in self.compared],
            "full_grid": self.is_full_grid,
            "overrides": list(self.designs[0].further),
            "seeds": list(self.demand.seeds),
            "margin": self.demand.margin,
            "configuration": xxhash.xxh3_64_hexdigest(json.dumps(configs, sort_keys=True).encode()),
            "code": code_digest(),
            "versions": versions("numpy"),
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found for a design, at `rate_rps` where that was asked for: `best` is None where no size will do.

    Where `is_compared`, `best` is the size that was given, whether it carries the rate or not.
    """

    design: Design
    rate_rps: float | None
    best: Best | None
    is_compared: bool = False

    def as_json(self) -> dict[str, Any]:
        values: dict[str, Any] = {"design": self.design.name, "rate_rps": self.rate_rps, "compared": self.is_compared}
        if self.best is None:
            return values | {"size": None}
        size, probe = self.best.size, self.best.probe.as_json()
        del probe["wall_s"]
        return values | {"size": str(size), "num_prompt": size.num_prompt, "num_token": size.num_token, "probe": probe}


def search(question: Question, ledger: ProbeLog, num_processes: int, on_run: OnRun) -> list[Answer]:
    """The answers: for each design at each rate what was found, and after it the sizes to compare with.

    Each design and rate is searched by itself, one run after the other, and several of them side by side where there are
    several processes: how many changes nothing but the time. Raises
    KeyboardInterrupt, BrokenProcessPool where a process was killed, OSError: what has been run is in the ledger.
    """
    asked_rates = (None,) if question.objective == THROUGHPUT else question.rates_rps
    tasks = [(design, rate_rps) for design in question.designs for rate_rps in asked_rates]
    num_processes = min(num_processes, len(tasks))
    with workers(num_processes, question.demand) as execute:

        def answer(task: tuple[Design, float | None]) -> list[Answer]:
            design, rate_rps = task
            run = _runs(design, ledger, execute, on_run)
            sizes = [size for name, size in question.compared if name == design.name]
            return [
                _find(question, design, rate_rps, run),
                *(_compare(question, design, rate_rps, run, size) for size in sizes),
            ]

        if num_processes == 1:
            return [found for task in tasks for found in answer(task)]
        # Ctrl-C is for the main thread: these block it, and so do the processes that they start.
        threads = ThreadPoolExecutor(num_processes, "search", signal.pthread_sigmask, (signal.SIG_BLOCK, {signal.SIGINT}))
        try:
            return [found for of_task in threads.map(answer, tasks) for found in of_task]
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def winners(question: Question, answers: Sequence[Answer]) -> list[Answer]:
    """The best answer over all designs: one for each rate that was asked for, the one of the highest rate otherwise."""
    found = [(answer, answer.best) for answer in answers if answer.best is not None and not answer.is_compared]
    if question.objective == THROUGHPUT:
        return [max(found, key=lambda pair: pair[1].probe.rate_rps)[0]] if found else []
    best = []
    for rate_rps in question.rates_rps:
        of_rate = [pair for pair in found if pair[0].rate_rps == rate_rps]
        best += [min(of_rate, key=lambda pair: least.rank(question.objective, pair[0].design, pair[1]))[0]] if of_rate else []
    return best


def _runs(design: Design, ledger: ProbeLog, execute: Execute, on_run: OnRun) -> Run:
    def run(size: Size, rate_rps: float) -> Probe:
        key = Key(design.name, size, float(rate_rps))
        if key not in ledger.probes:
            ledger.add(key, execute(design.overrides(size), key.rate_rps))
            on_run(key, ledger.probes[key])
        return ledger.probes[key]

    return run


def _find(question: Question, design: Design, rate_rps: float | None, run: Run) -> Answer:
    if rate_rps is None:
        find_most = most.every_size if question.is_full_grid else most.most
        return Answer(design, None, find_most(design, question.rates, question.caps, run))
    find_least = least.every_size if question.is_full_grid else least.least
    return Answer(design, rate_rps, find_least(question.objective, design, rate_rps, question.caps, run))


def _compare(question: Question, design: Design, rate_rps: float | None, run: Run, size: Size) -> Answer:
    if rate_rps is not None:
        return Answer(design, rate_rps, Best(size, run(size, rate_rps)), is_compared=True)
    rates = question.rates
    found = bisect(partial(run, size), rates.low_rps, rates.high_rps, rates.tolerance, guess_rps=design.guess_rps(size))
    best = None if found.at_limit is None else Best(size, found.at_limit)
    return Answer(design, None, best, is_compared=True)


def compared(texts: Sequence[str], designs: Sequence[Design]) -> tuple[tuple[str, Size], ...]:
    """Sizes written as `splitwise_hh=27P3T`. Raises ConfigError."""
    named = {design.name: design for design in designs}
    pairs = []
    for text in texts:
        name, _, size = text.partition("=")
        if name not in named:
            raise ConfigError(f"--compare {text}: expected DESIGN=SIZE, the design one of {', '.join(named)}")
        pairs.append((name, named[name].parse(size)))
    return tuple(pairs)
