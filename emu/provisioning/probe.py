"""One run of a configuration, told by whether it would do: the SLOs, the verdict, and what it costs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from emu.build import ConfigError, Plan, build, compose
from emu.results.slo import METRICS, STATISTICS
from emu.results.summary import summarize
from emu.results.verdict import INVALID


@dataclass(frozen=True, slots=True)
class Probe:
    """What a run at `rate_rps` requests/s came to.

    `met`: all nine SLOs hold, the run is neither INVALID nor SATURATED, and no request failed; `reasons` says what else.
    `margins` has limit / value - 1 of each SLO (`ttft_p50`, ...), None where nothing was measured. `dollars_per_hour` and
    `relative_power` (1 is a DGX-A100) are of the machines, whatever they do; `mean_power_w` is by the method of `power=`.
    `wall_s` is how long the run took here: the only field that another run of the same configuration may have otherwise.
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
    wall_s: float
    illustrative: str = ""

    @property
    def worst_margin(self) -> float | None:
        """The least of the margins: by how much the tightest SLO holds. None where nothing was measured."""
        return min((margin for margin in self.margins.values() if margin is not None), default=None)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Probe":
        return cls(**values | {"reasons": tuple(values["reasons"])})


def probe(overrides: Sequence[str], rate_rps: float) -> Probe:
    """Run the configuration with these overrides at `rate_rps` requests/s, in the virtual runtime.

    Raises ConfigError for a configuration that cannot be run, or judged; KeyboardInterrupt after Ctrl-C.
    """
    return run(plan_probe(overrides, rate_rps), rate_rps)


def plan_probe(overrides: Sequence[str], rate_rps: float) -> Plan:
    """The run that `probe` would make: to be sure that it can be. Raises ConfigError."""
    runtime = [] if any(override.startswith("runtime=") for override in overrides) else ["runtime=virtual"]
    plan = build(compose([*runtime, *overrides, f"workload.rate_rps={float(rate_rps)}"]))
    if plan.runtime.name != "virtual":
        raise ConfigError(f"runtime={plan.runtime.name}: expected runtime=virtual, in which a search can run many times")
    if plan.service_levels.timing is None:
        raise ConfigError(f"slo: cannot be judged: {plan.service_levels.reason}")
    return plan


def run(plan: Plan, rate_rps: float) -> Probe:
    """Run a plan of `plan_probe`. Raises KeyboardInterrupt after Ctrl-C."""
    wall_start = perf_counter()
    record = plan.runtime.run(plan.rehearse(run_dir=Path(), log_events=False))
    if record.interrupted:
        raise KeyboardInterrupt
    summary = summarize(record, plan.metrics.warmup_s, plan.verdict, plan.service_levels, plan.power)
    levels = {
        f"{metric}_{statistic}": summary["slo"]["limits"][metric][statistic] for metric in METRICS for statistic in STATISTICS
    }
    reasons = _reasons(summary, levels)
    hardware = [machine.hardware for machine in record.machines]
    return Probe(
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
        wall_s=perf_counter() - wall_start,
        illustrative=summary["timing"]["illustrative"],
    )


def _reasons(summary: dict[str, Any], levels: dict[str, dict[str, float | None]]) -> list[str]:
    """Why the run does not do; empty where it does."""
    reasons = []
    if summary["verdict"] == INVALID:
        reasons.append(INVALID)
    if summary["saturated"]:
        reasons.append("SATURATED")
    if summary["requests"]["failed"]:
        reasons.append(f"{summary['requests']['failed']} failed")
    for name, level in levels.items():
        if level["value"] is not None and level["value"] > level["limit"]:
            reasons.append(f"{name} {level['value']:.2f}x > {level['limit']:g}x")
    if not reasons and not summary["slo"]["met"]:
        reasons.append("SLOs not met")  # none of the judged requests was measured
    return reasons
