"""Claims about throughput: the highest rate within all nine SLOs, of one cluster against another."""

from collections.abc import Iterator
from dataclasses import dataclass

from emu.reproduction.claim import Claim
from emu.reproduction.finding import ClaimFigure, Finding, written
from emu.reproduction.lab import CALIBRATED, COMPATIBLE, MODES, RULES, WORKLOADS, ClusterCapacity, Lab, PaperCluster

AS_PUBLISHED = "as published"  # the compatible mode, judged as the published analysis does


@dataclass(frozen=True, slots=True)
class Comparison:
    """One cluster over another, and the paper's number for it, if it has one. `note` says what is known beforehand."""

    cluster: PaperCluster
    baseline: PaperCluster
    paper: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class ThroughputClaim(Claim):
    """Throughput of clusters over others'. With `is_change` the figure is the change, not the ratio: a loss is negative.

    `cost` and `power` are the paper's changes against the baseline of the first comparison.
    """

    comparisons: tuple[Comparison, ...]
    cost: float | None = None
    power: float | None = None
    is_change: bool = False

    def capacities(self) -> Iterator[tuple[PaperCluster, str]]:
        for comparison in self.comparisons:
            for mode in MODES:
                yield comparison.baseline, mode
                yield comparison.cluster, mode

    def measure(self, lab: Lab) -> Finding:
        figures: list[ClaimFigure] = []
        conclusions: list[str] = []
        why: list[str] = []
        for comparison in self.comparisons:
            pairs = {mode: (lab.capacity(comparison.cluster, mode), lab.capacity(comparison.baseline, mode)) for mode in MODES}
            figures.append(self._throughput(comparison, pairs))
            conclusions.append(conclusion(lab, comparison, pairs))
            why += explanation(lab, comparison, pairs)
            why += [comparison.note] if comparison.note else []
        if not self.is_change:
            figures += self._prices(lab)
        return Finding(self.name, self.where, self.says, tuple(figures), conclusions[0], tuple(dict.fromkeys(why)))

    def _throughput(self, comparison: Comparison, pairs: dict[str, tuple[ClusterCapacity, ClusterCapacity]]) -> ClaimFigure:
        values = {mode: ratio(*(capacity.goodput_rps for capacity in pair)) for mode, pair in pairs.items()}
        values[AS_PUBLISHED] = ratio(*(capacity.published_rps for capacity in pairs[COMPATIBLE]))
        if self.is_change:
            values = {mode: None if value is None else value - 1 for mode, value in values.items()}
        what = f"{comparison.cluster.label} over {comparison.baseline.label}"
        workloads = dict.fromkeys(WORKLOADS[cluster.workload] for cluster in (comparison.cluster, comparison.baseline))
        return ClaimFigure(
            f"{what}, {' and '.join(workloads)}", "change" if self.is_change else "times", comparison.paper, values
        )

    def _prices(self, lab: Lab) -> Iterator[ClaimFigure]:
        seen: set[str] = set()
        for comparison in self.comparisons:
            here, there = (
                lab.outcome(cluster, COMPATIBLE, lab.effort.from_rps).probe
                for cluster in (comparison.cluster, comparison.baseline)
            )
            pair = f"{comparison.cluster.label} over {comparison.baseline.label}"
            papers = {"cost": None, "power": None} if seen else {"cost": self.cost, "power": self.power}
            if pair in seen:
                continue
            seen.add(pair)
            cost = here.dollars_per_hour / there.dollars_per_hour - 1
            power = here.relative_power / there.relative_power - 1
            yield ClaimFigure(f"cost of {pair}", "change", papers["cost"], dict.fromkeys(MODES, cost))
            yield ClaimFigure(f"power of {pair}", "change", papers["power"], dict.fromkeys(MODES, power))


def ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None


def conclusion(lab: Lab, comparison: Comparison, pairs: dict[str, tuple[ClusterCapacity, ClusterCapacity]]) -> str:
    """What stops both in the compatible mode and with the calibrated timing, and how far their decode times are apart."""

    def stopped(capacity: ClusterCapacity) -> str:
        beyond = capacity.goodput.beyond
        return (
            "nothing that was tried" if beyond is None else f"{beyond.reasons[0]} at {beyond.rate_rps:.3g} requests/s offered"
        )

    names = (comparison.cluster.label, comparison.baseline.label)
    ratios = {mode: ratio(*(capacity.goodput_rps for capacity in pair)) for mode, pair in pairs.items()}
    was, swapped, now = (written(ratios[mode], "times") for mode in (COMPATIBLE, RULES, CALIBRATED))
    parts = [f"the timing alone takes the ratio from {was} to {swapped}, rules and memory from there to {now}"]
    for mode in (COMPATIBLE, CALIBRATED):
        both = (f"{name} is stopped by {stopped(capacity)}" for name, capacity in zip(names, pairs[mode], strict=True))
        parts.append(f"{mode}: {', '.join(both)}")
    differences = [
        lookup_s / calibrated_s - 1
        for cluster, capacity in zip((comparison.cluster, comparison.baseline), pairs[COMPATIBLE], strict=True)
        for *_, lookup_s, calibrated_s in decode_steps(lab, cluster, capacity)
    ]
    if differences:
        parts.append(
            "at their limits in the compatible mode the lookup differs from the calibrated decode times by "
            f"{' and '.join(f'{difference:+.0%}' for difference in differences)}"
        )
    return "; ".join(parts) + "."


def explanation(lab: Lab, comparison: Comparison, pairs: dict[str, tuple[ClusterCapacity, ClusterCapacity]]) -> Iterator[str]:
    """What limits each of the two in each mode, and what a decode step at the limit takes by both timings."""
    for index, cluster in enumerate((comparison.cluster, comparison.baseline)):
        for mode, pair in pairs.items():
            capacity = pair[index]
            found = "none" if capacity.goodput_rps is None else f"{capacity.goodput_rps:.4g} requests/s offered"
            yield f"{cluster.label}, {WORKLOADS[cluster.workload]}, {mode}: {found}; {capacity.binding or 'no limit found'}"
        yield from decode_facts(lab, cluster, pairs[COMPATIBLE][index])


def decode_steps(lab: Lab, cluster: PaperCluster, capacity: ClusterCapacity) -> Iterator[tuple[str, int, float, float, float]]:
    """Of each hardware that decodes at the limit in the compatible mode: sequences of a step, the context of each, and the
    seconds of such a step by the published lookup and as calibrated."""
    if capacity.goodput_rps is None:
        return
    at_limit = lab.outcome(cluster, COMPATIBLE, capacity.goodput_rps)
    for hardware, num_seqs in at_limit.decode_seqs.items():
        seqs, context = max(1, round(num_seqs)), at_limit.decode_context[hardware]
        lookup, calibrated = (lab.timing(cluster, mode, hardware) for mode in (COMPATIBLE, CALIBRATED))
        step = (seqs, round(seqs * context))
        yield hardware, seqs, context, lookup.decode_s(*step), calibrated.decode_s(*step)


def decode_facts(lab: Lab, cluster: PaperCluster, capacity: ClusterCapacity) -> Iterator[str]:
    for hardware, seqs, context, lookup_s, calibrated_s in decode_steps(lab, cluster, capacity):
        yield (
            f"{cluster.label} at {capacity.goodput_rps:.4g} requests/s offered in the compatible mode decodes {seqs} "
            f"sequences of {context:,.0f} tokens each in a step on {hardware}: {1000 * lookup_s:.1f} ms by the published "
            f"lookup, {1000 * calibrated_s:.1f} ms calibrated ({lookup_s / calibrated_s - 1:+.0%})"
        )
