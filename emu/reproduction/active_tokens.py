"""How many tokens a machine works on at once (Splitwise, §VI-B, Fig. 17)."""

from dataclasses import dataclass

from emu.reproduction.claim import Claim
from emu.reproduction.finding import ClaimFigure, Finding
from emu.reproduction.lab import CALIBRATED, COMPATIBLE, Lab, PaperCluster
from emu.reproduction.outcome import TOKENS, Outcome

HERE = (COMPATIBLE, CALIBRATED)
LOW_RPS, HIGH_RPS, FEW = 70.0, 130.0, 15
BASELINE, SPLIT = PaperCluster("baseline_h100"), PaperCluster("splitwise_hh")


@dataclass(frozen=True, slots=True)
class ActiveTokensClaim(Claim):
    """The share of all machine time, idle time included, with at most 15 tokens active, on the conversation trace."""

    def measure(self, lab: Lab) -> Finding:
        outcomes = {
            (cluster, mode, rate): lab.outcome(cluster, mode, rate)
            for cluster in (BASELINE, SPLIT)
            for mode in HERE
            for rate in (LOW_RPS, HIGH_RPS)
        }

        def values(cluster: PaperCluster, role: str, rate: float, index: int) -> dict[str, float | None]:
            return {mode: outcomes[cluster, mode, rate].time_at_or_below[role][index] for mode in HERE}

        few, twenty = TOKENS.index(FEW), TOKENS.index(20)
        figures = (
            ClaimFigure(
                f"{BASELINE.label}, time at ≤ 15 tokens, 70 requests/s offered",
                "share",
                0.7,
                values(BASELINE, "mixed", LOW_RPS, few),
            ),
            ClaimFigure(
                f"{BASELINE.label}, time at ≤ 20 tokens, 70 requests/s offered",
                "share",
                None,
                values(BASELINE, "mixed", LOW_RPS, twenty),
            ),
            ClaimFigure(
                f"{SPLIT.label}, prompt machines idle, 70 requests/s offered",
                "share",
                None,
                values(SPLIT, "prefill", LOW_RPS, 0),
            ),
            ClaimFigure(
                f"{SPLIT.label}, prompt machines idle, 130 requests/s offered",
                "share",
                None,
                values(SPLIT, "prefill", HIGH_RPS, 0),
            ),
        )
        conclusion = (
            "70 % of the time lies at or below "
            f"{' and '.join(f'{_tokens_at(outcomes[BASELINE, mode, LOW_RPS], 0.7)} tokens ({mode})' for mode in HERE)}. "
            "The share rises steeply there, so that a few tokens decide it; why the paper's batches are smaller is unknown."
        )
        why = tuple(
            f"{mode}: at {LOW_RPS:g} requests/s offered {BASELINE.label} decodes "
            f"{mean_seqs(outcomes[BASELINE, mode, LOW_RPS])} sequences a step on average, over its decode-only steps by time"
            for mode in HERE
        )
        return Finding(self.name, self.where, self.says, figures, conclusion, why)


def mean_seqs(outcome: Outcome) -> str:
    return " and ".join(f"{seqs:.1f}" for seqs in outcome.decode_seqs.values())


def _tokens_at(outcome: Outcome, share: float) -> int:
    """The fewest tokens of `TOKENS` at or below which at least this share of the time lies."""
    return next(tokens for tokens, below in zip(TOKENS, outcome.time_at_or_below["mixed"], strict=True) if below >= share)
