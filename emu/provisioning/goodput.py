"""Goodput: the highest request rate that a configuration carries within all nine SLOs, by bracketing and bisection.

    from emu.provisioning.goodput import find_goodput

    goodput = find_goodput(["cluster=splitwise_hh", "workload=splitwise_conv"], low_rps=10, high_rps=400)
    print(goodput)               # 118.4 requests/s, and what stops it
    goodput.around()             # the probes next to the limit, whose runs show how sharp it is

All rates have the seed of the configuration, and so the same requests and the same pattern of arrivals, stretched: common
random numbers. Bisection takes it that what carries a rate carries all lower ones. Near the limit that need not be so: one long
prompt more or less decides a p99 of a short run. What is always so: the run at `goodput_rps` met everything, and one at most
`tolerance` faster did not. Whether a rate above that would do once more was not looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from emu.core import setting
from emu.provisioning.probe import Probe, plan_probe, probe

TOLERANCE = 0.01
# From one rate of the bracket to the next; the first step from a guess is smaller, and each one after it the square of the one
# before. A run far above the limit costs many times one below it.
BRACKET_FACTOR, FACTOR_FROM_GUESS = 2.0, 1.2
DIGITS = 6  # of a rate: as it is written, so it is run


@dataclass(frozen=True, slots=True)
class Goodput:
    """`goodput_rps` is the highest rate found to be met, None where not even the lowest allowed is; `next_rps` the lowest
    found above it that is not, None where the highest allowed is met. `probes` are all runs, by rate."""

    goodput_rps: float | None
    next_rps: float | None
    probes: tuple[Probe, ...]

    @property
    def at_limit(self) -> Probe | None:
        """The run at `goodput_rps`."""
        return next((run for run in self.probes if run.rate_rps == self.goodput_rps), None)

    @property
    def beyond(self) -> Probe | None:
        """The run at `next_rps`, whose `reasons` say what stops the configuration."""
        return next((run for run in self.probes if run.rate_rps == self.next_rps), None)

    def around(self, num_each_side: int = 2) -> tuple[Probe, ...]:
        """The probes next to the limit, at most so many at and below it, and as many above."""
        below = [run for run in self.probes if self.goodput_rps is not None and run.rate_rps <= self.goodput_rps]
        above = self.probes[len(below) :]
        return (*below[len(below) - min(num_each_side, len(below)) :], *above[:num_each_side])

    def __str__(self) -> str:
        why = ", ".join(self.beyond.reasons) if self.beyond is not None else ""
        if self.goodput_rps is None:
            return f"not even {self.next_rps:g} requests/s: {why}"
        if self.next_rps is None:
            return f"{self.goodput_rps:g} requests/s or more"
        return f"{self.goodput_rps:g} requests/s; at {self.next_rps:g}: {why}"

    def as_json(self) -> dict[str, Any]:
        return {
            "goodput_rps": self.goodput_rps,
            "next_rps": self.next_rps,
            "probes": [run.as_json() for run in self.probes],
        }


def find_goodput(
    overrides: Sequence[str],
    low_rps: float,
    high_rps: float,
    tolerance: float = TOLERANCE,
    *,
    guess_rps: float | None = None,
    on_probe: Callable[[Probe], None] = lambda run: None,
) -> Goodput:
    """The goodput of the configuration with these overrides, between `low_rps` and `high_rps`, to a relative `tolerance`.

    The limit is first bracketed, from `guess_rps` (default: `low_rps`) on, and `on_probe` is told of every run. Everything
    but the rate is as the overrides say, the runtime `virtual`. Costs about log2(limit / low) + log2(0.7 / tolerance) runs,
    the first of them cheap; with a guess within 20 %, 2 + log2(0.2 / tolerance).

    Raises ConfigError for a configuration that cannot be run at a rate, or judged (before the first run for `low_rps`);
    SettingError for rates or a tolerance that cannot be; KeyboardInterrupt after Ctrl-C.
    """
    plan_probe(overrides, setting.positive("low_rps", low_rps))

    def run(rate_rps: float) -> Probe:
        result = probe(overrides, rate_rps)
        on_probe(result)
        return result

    return bisect(run, low_rps, high_rps, tolerance, guess_rps)


def bisect(
    run: Callable[[float], Probe], low_rps: float, high_rps: float, tolerance: float, guess_rps: float | None = None
) -> Goodput:
    """As `find_goodput`, of whatever `run` runs at a rate. Raises SettingError, and what `run` raises."""
    low_rps, high_rps = setting.positive("low_rps", low_rps), setting.positive("high_rps", high_rps)
    tolerance = setting.between("tolerance", tolerance, 1e-4, 1)
    if low_rps > high_rps:
        raise setting.SettingError(f"low_rps={low_rps:g}: expected at most high_rps={high_rps:g}")
    start_rps, factor = low_rps, BRACKET_FACTOR
    if guess_rps is not None:
        start_rps = min(max(setting.positive("guess_rps", guess_rps), low_rps), high_rps)
        factor = FACTOR_FROM_GUESS
    probes: dict[float, Probe] = {}

    def is_met(rate_rps: float) -> bool:
        probes[rate_rps] = run(rate_rps)
        return probes[rate_rps].met

    met_rps, missed_rps = _bracket(is_met, low_rps, high_rps, start_rps, factor)
    while met_rps is not None and missed_rps is not None and missed_rps / met_rps - 1 > tolerance:
        middle_rps = _rounded(sqrt(met_rps * missed_rps))
        met_rps, missed_rps = (middle_rps, missed_rps) if is_met(middle_rps) else (met_rps, middle_rps)
    return Goodput(met_rps, missed_rps, tuple(probes[rate_rps] for rate_rps in sorted(probes)))


def _bracket(
    is_met: Callable[[float], bool], low_rps: float, high_rps: float, start_rps: float, factor: float
) -> tuple[float | None, float | None]:
    """A rate that is met and a higher one that is not, the first pair seen from `start_rps` on; None where there is none."""
    rate_rps = start_rps
    if is_met(rate_rps):
        while rate_rps < high_rps:
            met_rps, rate_rps = rate_rps, min(_rounded(rate_rps * factor), high_rps)
            if not is_met(rate_rps):
                return met_rps, rate_rps
            factor = min(factor**2, BRACKET_FACTOR)
        return rate_rps, None
    while rate_rps > low_rps:
        missed_rps, rate_rps = rate_rps, max(_rounded(rate_rps / factor), low_rps)
        if is_met(rate_rps):
            return rate_rps, missed_rps
        factor = min(factor**2, BRACKET_FACTOR)
    return None, rate_rps


def _rounded(rate_rps: float) -> float:
    return float(f"{rate_rps:.{DIGITS}g}")
