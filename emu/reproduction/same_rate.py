"""The same throughput for less: the cheapest cluster, or that of least power, that carries 70 requests/s (§VI-C, Fig. 19)."""

from dataclasses import dataclass

from emu.provisioning.design import Design, Size
from emu.provisioning.least import Best, least
from emu.provisioning.probe import Probe
from emu.provisioning.question import COST, POWER, Caps, amount
from emu.reproduction.claim import Claim
from emu.reproduction.finding import ClaimFigure, Finding
from emu.reproduction.lab import CALIBRATED, COMPATIBLE, DESIGNS, WORKLOADS, Lab
from emu.reproduction.throughput import AS_PUBLISHED

OTHER = {COST: POWER, POWER: COST}
RATE_RPS = 70.0  # for which the paper provisions (Fig. 12)
HERE = {COMPATIBLE: ["experiment=splitwise_sim"], AS_PUBLISHED: ["experiment=splitwise_sim"], CALIBRATED: []}


@dataclass(frozen=True, slots=True)
class SameRateClaim(Claim):
    """The least `objective` of `design` over that of `baseline`, less 1; each the best of all its sizes.

    The paper does not say for which workload its number is: it stands beside both.
    """

    objective: str
    design: str
    baseline: str
    paper: float
    workloads: tuple[str, ...] = ("conv", "code")

    def measure(self, lab: Lab) -> Finding:
        figures, told = [], []
        for workload in self.workloads:
            values: dict[str, dict[str, float | None]] = {self.objective: {}, OTHER[self.objective]: {}}
            for mode in HERE:
                found = [
                    (name, design, self._least(lab, mode, design))
                    for name in (self.design, self.baseline)
                    for design in [self._design(lab, mode, name, workload)]
                ]
                for objective, by_mode in values.items():
                    by_mode[mode] = _change(objective, found)
                both = ", ".join(_told(*each) for each in found)
                told.append(f"{WORKLOADS[workload]}, {mode}: {both}")
            pair = f"{DESIGNS[self.design]} over {DESIGNS[self.baseline]}"
            pair += f" at {RATE_RPS:g} requests/s offered, {WORKLOADS[workload]}"
            figures += [
                ClaimFigure(f"{objective} of {pair}", "change", self.paper if objective == self.objective else None, by_mode)
                for objective, by_mode in values.items()
            ]
        return Finding(self.name, self.where, self.says, tuple(figures), "; ".join(told[: len(HERE)]) + ".", tuple(told))

    def _design(self, lab: Lab, mode: str, name: str, workload: str) -> Design:
        load = ["runtime=virtual", f"workload=splitwise_{workload}", f"workload.duration_s={lab.effort.duration_s:g}"]
        return Design.of(name, [*HERE[mode], f"model={lab.model}", *load], RATE_RPS)

    def _least(self, lab: Lab, mode: str, design: Design) -> Best | None:
        def run(size: Size, rate_rps: float) -> Probe:
            outcome = lab.observe(design.overrides(size), rate_rps)
            return outcome.as_published if mode == AS_PUBLISHED else outcome.probe

        return least(self.objective, design, RATE_RPS, Caps(), run)


def _change(objective: str, found: list[tuple[str, Design, Best | None]]) -> float | None:
    here, there = (None if best is None else amount(objective, design, best.size) for _, design, best in found)
    return None if here is None or there is None else here / there - 1


def _told(name: str, design: Design, best: Best | None) -> str:
    if best is None:
        return f"{DESIGNS[name]}: no size of at most {Caps().max_machines} machines carries {RATE_RPS:g} requests/s offered"
    power, cost = (amount(objective, design, best.size) for objective in (POWER, COST))
    return f"{DESIGNS[name]} {best.size} (${cost:,.0f}/h, power {power:.1f}, tightest {best.probe.tightest})"
