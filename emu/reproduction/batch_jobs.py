"""Batch jobs: what a dollar buys where no latency matters (Splitwise, §VI-E)."""

from dataclasses import dataclass

from emu.reproduction.claim import Claim
from emu.reproduction.finding import ClaimFigure, Finding
from emu.reproduction.lab import MODES, Lab, PaperCluster

STRESS_RPS, DURATION_S = 180.0, 180.0
GPUS_A_MACHINE = 8  # the published analysis takes $4.76 and $2.21 for a machine: what CoreWeave asks for one GPU


@dataclass(frozen=True, slots=True)
class BatchClaim(Claim):
    """Requests that end a second, of a cluster at 180 requests/s, over its price: (cluster, the paper's number) each.

    As the published analysis: conversation at 180 requests/s, which none carries; counted are the requests that end from a
    minute after the start to the last arrival. Its price of a machine is that of one of its GPUs.
    """

    clusters: tuple[tuple[PaperCluster, float], ...]

    def measure(self, lab: Lab) -> Finding:
        figures, why = [], []
        for cluster, paper in self.clusters:
            values: dict[str, float | None] = {}
            told: list[str] = []
            for mode in MODES:
                duration_s = DURATION_S * lab.effort.duration_s / 120
                further = [f"workload.duration_s={duration_s:g}", "metrics.max_drain_s=0"]
                outcome = lab.outcome(cluster, mode, STRESS_RPS, further)
                price = outcome.probe.dollars_per_hour
                values[mode] = outcome.completed_rps / (price / GPUS_A_MACHINE)
                told.append(
                    f"{mode} {outcome.completed_rps:.0f} requests/s completed, {outcome.completed_rps / price:.3f} per $/h"
                )
            figures.append(
                ClaimFigure(f"{cluster.label}, completed requests/s per $/h of one GPU a machine", "per_dollar", paper, values)
            )
            needed_rps = paper * price / GPUS_A_MACHINE
            why.append(
                f"{cluster.label}: {'; '.join(told)} of the whole machines' ${price:g}/h. {paper} per $ is "
                f"{needed_rps:.0f} requests/s completed by the price of one GPU a machine, {paper * price:,.0f} by the "
                "machines'."
            )
        return Finding(self.name, self.where, self.says, tuple(figures), why[0], tuple(why))
