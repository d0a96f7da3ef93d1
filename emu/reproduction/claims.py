"""The claims of the paper (Patel et al., ISCA 2024, arXiv 2311.18677v2), each by its name."""

from typing import Any

from emu.provisioning.question import COST, POWER
from emu.reproduction.active_tokens import ActiveTokensClaim
from emu.reproduction.batch_jobs import BatchClaim
from emu.reproduction.handover import HandoverClaim
from emu.reproduction.lab import PaperCluster
from emu.reproduction.same_rate import SameRateClaim
from emu.reproduction.throughput import Comparison, ThroughputClaim

A100, H100 = "baseline_a100", "baseline_h100"
AA, HH, HA, HHCAP = "splitwise_aa", "splitwise_hh", "splitwise_ha", "splitwise_hhcap"
HA_NOTE = (
    "Splitwise-HA (25P26T) costs 14 % more than Baseline-A100 at the paper's prices and 7 % less than Baseline-H100: the text "
    "names Baseline-A100, yet its 10 % lower cost can only be against Baseline-H100, so both ratios are given."
)


def over(design: str, baseline: str, paper: float | None = None, note: str = "", **cluster: str) -> Comparison:
    return Comparison(PaperCluster(design, **cluster), PaperCluster(baseline, **cluster), paper, note)


ISO_COST: dict[str, Any] = {"cap": "iso_cost"}
CODING: dict[str, Any] = {"sized_for": "code"}


def moved(design: str, paper: float) -> Comparison:
    """Conversation on the cluster sized for coding, over the one sized for conversation."""
    return Comparison(PaperCluster(design, sized_for="code", serves="conv"), PaperCluster(design), paper)


CLAIMS = (
    ThroughputClaim(
        "iso-power",
        "§VI-B, Fig. 18a",
        "Conversation, at the power of 40 DGX-H100: Splitwise-AA has 2.15× the throughput of Baseline-A100 at the same power "
        "and cost, Splitwise-HA 1.18× at 10 % lower cost.",
        (
            over(AA, A100, 2.15),
            over(HA, A100, 1.18, HA_NOTE),
            over(HA, H100, 1.18),
            over(HH, H100),
            over(HHCAP, H100),
            over(H100, A100),
        ),
    ),
    ThroughputClaim(
        "iso-cost",
        "§VI-C, Fig. 18b",
        "Conversation, at the price of 40 DGX-H100: Splitwise-AA has 1.4× the throughput of Baseline-H100, at 25 % more power.",
        (
            over(AA, H100, 1.4, **ISO_COST),
            over(HA, H100, **ISO_COST),
            over(HHCAP, H100, **ISO_COST),
            over(A100, H100, **ISO_COST),
        ),
        power=0.25,
    ),
    ThroughputClaim(
        "1.4x-at-20%-lower-cost",
        "abstract",
        "1.4× the throughput at 20 % lower cost. No pair and no workload is named; of the paper's clusters only "
        "the 70 DGX-A100 of iso-power cost some 20 % less than 40 DGX-H100: Splitwise-AA against Baseline-H100.",
        (over(AA, H100, 1.4, **CODING), over(AA, H100, 1.4)),
        cost=-0.2,
    ),
    ThroughputClaim(
        "2.35x-at-same-cost-and-power",
        "abstract, §IX",
        "2.35× the throughput at the same cost and power. No pair is named; only Splitwise-AA and Baseline-A100, and "
        "Splitwise-HH and Baseline-H100, have equal cost and power.",
        (over(AA, A100, 2.35), over(AA, A100, 2.35, **CODING), over(HH, H100), over(HH, H100, None, **CODING)),
    ),
    ThroughputClaim(
        "iso-power-coding",
        "§VI-B, Fig. 16a",
        "Coding, at the power of 40 DGX-H100: Splitwise-HH, -HHcap and -AA all do better than Baseline-H100 (no number).",
        tuple(over(design, H100, None, **CODING) for design in (HH, HHCAP, AA, HA)),
    ),
    SameRateClaim(
        "iso-throughput-power",
        "§VI-C, Fig. 19a",
        "The throughput of Baseline-H100 for 25 % less power with Splitwise-HHcap.",
        POWER,
        HHCAP,
        H100,
        -0.25,
    ),
    SameRateClaim(
        "iso-throughput-cost",
        "§VI-C, Fig. 19b",
        "The throughput of Baseline-H100 for 25 % less money with Splitwise-AA.",
        COST,
        AA,
        H100,
        -0.25,
    ),
    ThroughputClaim(
        "workload-change",
        "§VI-D, Fig. 20a",
        "Conversation on the iso-power clusters sized for coding: Splitwise-AA and -HH lose nothing, -HA and -HHcap 7 %.",
        (moved(AA, 0.0), moved(HH, 0.0), moved(HA, -0.07), moved(HHCAP, -0.07)),
        is_change=True,
    ),
    BatchClaim(
        "batch-jobs",
        "§VI-E",
        "Stressed without SLOs, Baseline-A100 and Splitwise-AA reach 0.89 RPS/$, Splitwise-HH and Baseline-H100 0.75.",
        ((PaperCluster(A100), 0.89), (PaperCluster(AA), 0.89), (PaperCluster(HH), 0.75), (PaperCluster(H100), 0.75)),
    ),
    ActiveTokensClaim(
        "active-tokens",
        "§VI-B, Fig. 17",
        "Conversation at 70 requests/s: Baseline-H100 spends 70 % of the time at 15 tokens or fewer; prompt machines of "
        "Splitwise-HH are mostly idle.",
    ),
    HandoverClaim(
        "layer-wise",
        "§VI-A, Figs. 14, 15",
        "Coding on one prompt and one token machine, without batching: layer-wise hand-overs add 16.5 % to the second token "
        "and 0.8 % to E2E, serialized ones 64 % and up to 3 %.",
    ),
)
BY_NAME = {claim.name: claim for claim in CLAIMS}
