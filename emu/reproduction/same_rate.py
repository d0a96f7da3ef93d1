"""The same throughput for less: the cheapest cluster, or that of least power, that carries 70 requests/s (§VI-C, Fig. 19)."""

from collections.abc import Iterator
from dataclasses import dataclass

from emu.provisioning.design import Design, Size
from emu.provisioning.least import Best, least
from emu.provisioning.probe import Probe
from emu.provisioning.question import COST, POWER, Caps, amount
from emu.reproduction.finding import Figure, Finding
from emu.reproduction.lab import CALIBRATED, COMPATIBLE, DESIGNS, Lab, PaperCluster
from emu.reproduction.throughput import AS_PUBLISHED

RATE_RPS = 70.0  # for which the paper provisions (Fig. 12)
HERE = {COMPATIBLE: ["experiment=splitwise_sim"], AS_PUBLISHED: ["experiment=splitwise_sim"], CALIBRATED: []}


@dataclass(frozen=True, slots=True)
class SameRateClaim:
    """The least `objective` of `design` over that of `baseline`, less 1; each the best of all its sizes."""

    name: str
    where: str
    says: str
    objective: str
    design: str
    baseline: str
    paper: float
    workload: str = "code"

    def capacities(self) -> Iterator[tuple[PaperCluster, str]]:
        yield from ()

    def measure(self, lab: Lab) -> Finding:
        figures: dict[str, dict[str, float | None]] = {COST: {}, POWER: {}}
        why = []
        for mode in HERE:
            found = {
                name: (self._design(lab, mode, name), self._least(lab, mode, name)) for name in (self.design, self.baseline)
            }
            for objective, values in figures.items():
                here, there = (
                    None if best is None else amount(objective, design, best.size) for design, best in found.values()
                )
                values[mode] = None if here is None or not there else here / there - 1
            why += [f"{mode}: {_told(name, design, best)}" for name, (design, best) in found.items()]
        pair = f"{DESIGNS[self.design]} over {DESIGNS[self.baseline]} at {RATE_RPS:g} requests/s, {self.workload}"
        shown = tuple(
            Figure(f"{objective} of {pair}", "change", self.paper if objective == self.objective else None, values)
            for objective, values in figures.items()
        )
        return Finding(self.name, self.where, self.says, shown, "; ".join(why) + ".", ())

    def _design(self, lab: Lab, mode: str, name: str) -> Design:
        load = ["runtime=virtual", f"workload=splitwise_{self.workload}", f"workload.duration_s={lab.effort.duration_s:g}"]
        return Design.of(name, [*HERE[mode], f"model={lab.model}", *load], RATE_RPS)

    def _least(self, lab: Lab, mode: str, name: str) -> Best | None:
        design = self._design(lab, mode, name)

        def run(size: Size, rate_rps: float) -> Probe:
            outcome = lab.observe(design.overrides(size), rate_rps)
            return outcome.as_published if mode == AS_PUBLISHED else outcome.probe

        return least(self.objective, design, RATE_RPS, Caps(), run)


def _told(name: str, design: Design, best: Best | None) -> str:
    if best is None:
        return f"{DESIGNS[name]}: no size of at most {Caps().max_machines} machines carries {RATE_RPS:g} requests/s"
    power, cost = (amount(objective, design, best.size) for objective in (POWER, COST))
    tightest = min(best.probe.margins, key=lambda slo: best.probe.margins[slo] or 0.0)
    return (
        f"{DESIGNS[name]} {best.size}, ${cost:,.0f}/h, {power:.1f} times the power of a DGX-A100; tightest {tightest}, "
        f"{best.probe.margins[tightest]:+.1%}"
    )
