"""Service level objectives: limits on percentiles of the requests' slowdown, and whether a run meets them."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from emu.core import setting
from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing.family import TimingFamily
from emu.core.timing.model import TimingError, TimingModel
from emu.results.columns import FINISHED, Columns
from emu.results.distribution import PERCENTILES, distribution
from emu.results.metrics import measured_requests, submitted_requests
from emu.results.slowdown import Slowdowns, slowdowns

METRICS = ("ttft", "tbt", "e2e")
STATISTICS = tuple(f"p{q}" for q in PERCENTILES)


@dataclass(frozen=True, slots=True)
class SloSettings:
    """The hardware that slowdowns are against, and the limit of each percentile of the slowdown of TTFT, TBT and E2E.

    `tbt` says what TBT is a distribution of: `mean`, each request's mean gap, as Splitwise judges; `gaps`, every gap.
    Raises SettingError.
    """

    reference: HardwareSpec
    tbt: str
    ttft_p50: float
    ttft_p90: float
    ttft_p99: float
    tbt_p50: float
    tbt_p90: float
    tbt_p99: float
    e2e_p50: float
    e2e_p90: float
    e2e_p99: float

    def __post_init__(self) -> None:
        setting.one_of("slo.tbt", self.tbt, ("mean", "gaps"))
        for field in fields(self)[2:]:
            setting.positive(f"slo.{field.name}", getattr(self, field.name))

    def limit(self, metric: str, statistic: str) -> float:
        return float(getattr(self, f"{metric}_{statistic}"))


@dataclass(frozen=True, slots=True)
class ServiceLevels:
    """The objectives of a run with the timing of their reference machine; None where there is none, for `reason`."""

    settings: SloSettings
    timing: TimingModel | None
    reason: str = ""

    @classmethod
    def of(cls, settings: SloSettings, family: TimingFamily, model: ModelSpec) -> "ServiceLevels":
        """With the reference's timing from the run's own timing family. A run needs no timing of its reference to be run."""
        try:
            return cls(settings, family.for_machine(model, settings.reference))
        except TimingError as error:
            return cls(settings, None, str(error))

    def judge(self, columns: Columns, warmup_s: float) -> dict[str, Any]:
        """The objectives and what became of them, ready for JSON; `met` is None where there is no timing, for `reason`.

        Judged are all requests submitted after the warm-up. Values are percentiles of the slowdown of those that finished
        with every token recorded; `margin` is limit / value - 1, negative where missed; both are None where nothing was
        measured. `met`: no judged request failed or is unfinished, one at least was measured, and every value is within
        its limit. `limits.tbt` and `met` are by `tbt`; the two ways to tell TBT stand beside them.

        `share_within_p99` is the share of all judged requests whose slowdowns (TBT by its mean) are within the three p99
        limits; `goodput_rps` is their number over the seconds from the first judged arrival to the last token.
        """
        judged = submitted_requests(columns) & (columns.requests.arrival_s >= warmup_s)
        measured = measured_requests(columns, warmup_s)
        unfinished = judged & (columns.requests.status != FINISHED)
        slow = slowdowns(columns, measured, self.timing) if self.timing and measured.any() else None
        ttft, e2e, by_mean, by_gap = (dict.fromkeys(STATISTICS),) * 4
        if slow is not None:
            ttft, e2e, by_mean = (distribution(values) for values in (slow.ttft, slow.e2e, slow.tbt))
            by_gap = distribution(slow.gaps, slow.gap_weights)
        both = {"ttft": self._levels("ttft", ttft), "e2e": self._levels("e2e", e2e)}
        tbt = {"mean": self._levels("tbt", by_mean), "gaps": self._levels("tbt", by_gap)}

        def is_met(way: str) -> bool | None:
            if self.timing is None:
                return None
            return slow is not None and not unfinished.any() and all(map(_holds, (*both.values(), tbt[way])))

        num_within = None if self.timing is None else self._num_within_p99(slow)
        return {
            "reference": self.settings.reference.name,
            "reason": self.reason,
            "tbt": self.settings.tbt,
            "met": is_met(self.settings.tbt),
            "limits": {"ttft": both["ttft"], "tbt": tbt[self.settings.tbt], "e2e": both["e2e"]},
            "met_by_mean": is_met("mean"),
            "tbt_by_mean": tbt["mean"],
            "met_by_every_gap": is_met("gaps"),
            "tbt_by_every_gap": tbt["gaps"],
            "judged": int(np.count_nonzero(judged)),
            "measured": int(np.count_nonzero(measured)),
            "unfinished": int(np.count_nonzero(unfinished)),
            "share_within_p99": _ratio(num_within, int(np.count_nonzero(judged))),
            "goodput_rps": 0.0 if num_within == 0 and judged.any() else _ratio(num_within, _span_s(columns, judged)),
        }

    def _levels(self, metric: str, values: dict[str, float | None]) -> dict[str, dict[str, Any]]:
        return {name: _level(self.settings.limit(metric, name), values[name]) for name in STATISTICS}

    def _num_within_p99(self, slow: Slowdowns | None) -> int:
        if slow is None:
            return 0
        within = ~(slow.tbt > self.settings.tbt_p99)  # NaN, a single token, has no gap to be slow in
        within &= (slow.ttft <= self.settings.ttft_p99) & (slow.e2e <= self.settings.e2e_p99)
        return int(np.count_nonzero(within))


def _level(limit: float, value: float | None) -> dict[str, Any]:
    return {"limit": limit, "value": value, "margin": None if value is None else limit / value - 1}


def _holds(levels: dict[str, dict[str, Any]]) -> bool:
    return all(level["value"] is None or level["value"] <= level["limit"] for level in levels.values())


def _span_s(columns: Columns, judged: np.ndarray) -> float:
    requests = columns.requests
    last_s = requests.last_token_s[judged & ~np.isnan(requests.last_token_s)]
    return float(last_s.max() - requests.arrival_s[judged].min()) if len(last_s) else 0.0


def _ratio(amount: float | None, per: float) -> float | None:
    return amount / per if amount is not None and per > 0 else None
