"""A configuration at a rate, told by whether it would do with every seed: the SLOs, the verdict, and what it costs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Any

from emu.build import Plan, build, compose
from emu.config_error import ConfigError
from emu.core import setting
from emu.results.distribution import p99_name
from emu.results.run_record import RunRecord
from emu.results.slo import METRICS, STATISTICS
from emu.results.summary import summarize
from emu.results.verdict import INVALID

MAX_SEEDS = 1000


@dataclass(frozen=True, slots=True)
class Demand:
    """When a configuration does: with each of `seeds`, every SLO with a room of at least `margin`. Raises SettingError.

    Without seeds it is that of the configuration. Room is limit / value - 1.
    """

    seeds: tuple[int, ...] = ()
    margin: float = 0.0

    @classmethod
    def of(cls, first_seed: int, num_seeds: int, margin: float) -> "Demand":
        """The seeds to run, consecutive from `first_seed`."""
        seeds = range(first_seed, first_seed + setting.whole("--seeds", num_seeds, 1, MAX_SEEDS))
        return cls(tuple(seeds), setting.between("--margin", margin, 0, 1))


ANY = Demand()  # the seed of the configuration, and no room beyond the limits


@dataclass(frozen=True, slots=True)
class Probe:
    """What a run at `rate_rps` requests/s came to; of several seeds the first that does not do, else that with the least room.

    `met`: all nine SLOs hold, the run is neither INVALID nor SATURATED, and no request failed; `reasons` says what else.
    `margins` has limit / value - 1 of each SLO (`ttft_p50`, ...), None where nothing was measured. `dollars_per_hour` and
    `relative_power` (1 is a DGX-A100) are of the machines, whatever they do; `mean_power_w` is by the method of `power=`.
    `wall_s` is how long all its runs took here: the only field that another run of the same configuration may have otherwise.
    `illustrative` says why the figures predict nothing, '' where they do: a search compares its runs with each other alone.
    """

    rate_rps: float
    met: bool
    reasons: tuple[str, ...]
    verdict: str
    saturated: bool
    margins: dict[str, float | None]
    num_requests: int
    num_failed: int
    offered_rps: float | None
    completed_rps: float | None
    num_machines: int
    dollars_per_hour: float
    relative_power: float
    mean_power_w: float | None
    dollars_per_request: float | None
    kwh_per_request: float | None
    measured_requests: int
    seed: int
    wall_s: float
    illustrative: str = ""

    @property
    def worst_margin(self) -> float | None:
        """The least of the margins: by how much the tightest SLO holds. None where nothing was measured."""
        return min(self._known_margins.values(), default=None)

    @property
    def tightest(self) -> str:
        """The SLO with the least room, and how much; '' where nothing was measured."""
        known = self._known_margins
        if not known:
            return ""
        name = min(known, key=known.__getitem__)
        return f"{_level_name(name, self.measured_requests)} {100 * known[name]:+.0f} %"

    @property
    def _known_margins(self) -> dict[str, float]:
        return {name: margin for name, margin in self.margins.items() if margin is not None}

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Probe":
        return cls(**values | {"reasons": tuple(values["reasons"])})


def probe(overrides: Sequence[str], rate_rps: float, demand: Demand = ANY) -> Probe:
    """Run the configuration with these overrides at `rate_rps` requests/s, in the virtual runtime.

    One seed after the other, until one does not do. Raises ConfigError for a configuration that cannot be run, or judged;
    KeyboardInterrupt after Ctrl-C.
    """
    if not demand.seeds:
        return run(plan_probe(overrides, rate_rps), rate_rps, demand.margin)
    probes: list[Probe] = []
    for seed in demand.seeds:
        probes.append(run(plan_probe([*overrides, f"seed={seed}"], rate_rps), rate_rps, demand.margin))
        if not probes[-1].met:
            break
    told = min(probes, key=lambda each: (each.met, each.worst_margin))
    reasons = tuple(f"seed {told.seed}: {reason}" for reason in told.reasons) if len(demand.seeds) > 1 else told.reasons
    return replace(told, reasons=reasons, wall_s=sum(each.wall_s for each in probes))


def plan_probe(overrides: Sequence[str], rate_rps: float) -> Plan:
    """The run that `probe` would make: to be sure that it can be. Raises ConfigError."""
    runtime = [] if any(override.startswith("runtime=") for override in overrides) else ["runtime=virtual"]
    plan = build(compose([*runtime, *overrides, f"workload.rate_rps={float(rate_rps)}"]))
    if plan.runtime.name != "virtual":
        raise ConfigError(f"runtime={plan.runtime.name}: expected runtime=virtual, in which a search can run many times")
    if plan.service_levels.timing is None:
        raise ConfigError(f"slo: cannot be judged: {plan.service_levels.reason}")
    return plan


def run(plan: Plan, rate_rps: float, margin: float = 0.0) -> Probe:
    """Run a plan of `plan_probe`; `margin` is the room that each SLO must have. Raises KeyboardInterrupt after Ctrl-C."""
    return observed(plan, rate_rps, margin)[0]


def observed(plan: Plan, rate_rps: float, margin: float = 0.0) -> tuple[Probe, RunRecord]:
    """As `run`, with the record of the run."""
    wall_start = perf_counter()
    record = plan.run()
    if record.interrupted:
        raise KeyboardInterrupt
    summary = summarize(record, plan.metrics.warmup_s, plan.verdict, plan.service_levels, plan.power)
    levels = {
        f"{metric}_{statistic}": summary["slo"]["limits"][metric][statistic] for metric in METRICS for statistic in STATISTICS
    }
    reasons = _reasons(summary, levels, margin)
    hardware = [machine.hardware for machine in record.machines]
    judged = Probe(
        rate_rps=rate_rps,
        met=not reasons,
        reasons=tuple(reasons),
        verdict=summary["verdict"],
        saturated=summary["saturated"],
        margins={name: level["margin"] for name, level in levels.items()},
        num_requests=summary["requests"]["submitted"],
        num_failed=summary["requests"]["failed"],
        offered_rps=summary["offered_rps"],
        completed_rps=summary["completed_rps"],
        num_machines=len(hardware),
        dollars_per_hour=sum(spec.price_per_hour for spec in hardware),
        relative_power=sum(spec.relative_power for spec in hardware),
        mean_power_w=summary["energy"]["mean_power_w"],
        dollars_per_request=summary["cost"]["dollars"]["per_request"],
        kwh_per_request=summary["energy"]["kwh"]["per_request"],
        measured_requests=summary["measured_requests"],
        seed=summary["seed"],
        wall_s=perf_counter() - wall_start,
        illustrative=summary["timing"]["illustrative"],
    )
    return judged, record


def _reasons(summary: dict[str, Any], levels: dict[str, dict[str, Any]], margin: float) -> list[str]:
    """Why the run does not do; empty where it does."""
    reasons = []
    if summary["verdict"] == INVALID:
        reasons.append(INVALID)
    if summary["saturated"]:
        reasons.append("SATURATED")
    if summary["requests"]["failed"]:
        reasons.append(f"{summary['requests']['failed']} failed")
    for name, level in levels.items():
        told = _level_name(name, summary["measured_requests"])
        if level["value"] is not None and level["value"] > level["limit"]:
            reasons.append(f"{told} {level['value']:.2f}x > {level['limit']:g}x")
        elif level["margin"] is not None and level["margin"] < margin:
            reasons.append(f"{told} {level['value']:.2f}x, {100 * level['margin']:.1f} % of room < {100 * margin:g} %")
    if not reasons and not summary["slo"]["met"]:
        reasons.append("SLOs not met")  # none of the judged requests was measured
    return reasons


def _level_name(name: str, measured_requests: int) -> str:
    """Such as `ttft_p99`, or `ttft_p99 of 29 requests` where they are few."""
    return name.replace("p99", p99_name(measured_requests))
