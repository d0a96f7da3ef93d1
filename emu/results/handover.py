"""Where the time between first and second token goes: the ledger of hand-overs in figures."""

from typing import Any

import numpy as np

from emu.core.cluster import Cluster
from emu.results.columns import Columns
from emu.results.distribution import distribution
from emu.results.ledger import SPANS, Ledger, link_seconds

PLANS = ("serialized", "layerwise")
STATISTICS = ("mean", "p50", "p99")


def plan_rows(ledger: Ledger, counted: np.ndarray) -> dict[str, np.ndarray]:
    """Which of the `counted` rows (bool) went by each of the PLANS that occur; what came by neither was recovered."""
    by_plan = (counted & (ledger.transfer >= 0) & (ledger.is_layerwise == flag) for flag in (False, True))
    return {plan: rows for plan, rows in zip(PLANS, by_plan, strict=True) if rows.any()}


def wire_and_link_s(ledger: Ledger, counted: np.ndarray, columns: Columns, cluster: Cluster) -> tuple[np.ndarray, np.ndarray]:
    """For each `counted` hand-over whose bytes really moved: how long any of them was on the wire, and how long its whole KV
    cache takes links of its own by the model."""
    moved = counted & (ledger.payload >= 0)
    wire_s = columns.payloads.wire_s[ledger.payload[moved]]
    return wire_s, link_seconds(columns, cluster, ledger.transfer[moved])


def handover_figures(ledger: Ledger, measured: np.ndarray, columns: Columns, cluster: Cluster) -> dict[str, Any]:
    """The number of `requests` of the ledger that are `measured` (bool, one entry a request of the run); if there are any:

    gap_s       {mean, p50, p99} from first to second token
    span_s      the same of each of its SPANS, and `share`, the share of each in the mean gap
    payload     where bytes really moved: {mean, p50, p99} of `wire_s`, and of `link_s` by the model (`wire_and_link_s`)
    plan        all of this for serialized and for layerwise hand-overs apart
    """
    counted = measured[ledger.request_id]
    if not counted.any():
        return {"requests": 0}

    def figures(rows: np.ndarray) -> dict[str, Any]:
        gap_s = ledger.spans_s.sum(axis=0)[rows]
        span_s = {name: _statistics(span_s[rows]) for name, span_s in zip(SPANS, ledger.spans_s, strict=True)}
        mean_s = float(gap_s.mean())
        share = {name: statistics["mean"] / mean_s for name, statistics in span_s.items()}
        result = {"requests": len(gap_s), "gap_s": _statistics(gap_s), "span_s": span_s, "share": share}
        wire_s, link_s = wire_and_link_s(ledger, rows, columns, cluster)
        if len(wire_s):
            result["payload"] = {"count": len(wire_s), "wire_s": _statistics(wire_s), "link_s": _statistics(link_s)}
        return result

    return figures(counted) | {"plan": {plan: figures(rows) for plan, rows in plan_rows(ledger, counted).items()}}


def _statistics(values: np.ndarray) -> dict[str, Any]:
    figures = distribution(values)
    return {name: figures[name] for name in STATISTICS}
