"""Where the gap between first and second token of a hand-over goes: its spans as stacked bars, and in numbers."""

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from emu.results.handover import STATISTICS
from emu.results.ledger import SPANS
from emu.results.report import card
from emu.results.report.quantity import TimeUnit, count, share, unit_of
from emu.results.report.run import ReportedRun

# By span: its colour, and what it is.
LOOKS = {
    "recovery": ("red", "an earlier attempt was lost"),
    "hold": ("grey", "prefill end to offer at the destination"),
    "reserve": ("yellow", "waiting for blocks there"),
    "queue": ("purple", "pull request, and waiting for or sharing the link"),
    "wire": ("green", "with the link to itself, beyond the prefill"),
    "verify": ("green pale", "real bytes checked, beyond the modelled end"),
    "host": ("red pale", "this host beyond the model: a part of the bytes stood for all"),
    "activate": ("grey pale", "until the machine knows"),
    "wait": ("blue", "for the step: the running one, prompts, pauses"),
    "step": ("orange", "which writes the second token"),
}
PLAN_NAMES = {"serialized": "serialized", "layerwise": "layer by layer"}
LONGEST = 92.0  # percent of the width: the total stands beside the bar
LABELLED_SHARE = 0.04  # of the longest bar: what is narrower has no room for a number


def gap_box(run: ReportedRun) -> str:
    """One box for all measured hand-overs; nothing where there are none."""
    handover = run.summary["handover"]
    if not handover["requests"]:
        return ""
    unit = unit_of(handover["gap_s"]["mean"])
    plans = {PLAN_NAMES[plan]: figures for plan, figures in handover["plan"].items()} or {"recovered": handover}
    means = {name: {span: of["mean"] for span, of in figures["span_s"].items()} for name, figures in plans.items()}
    requests = {name: figures["requests"] for name, figures in plans.items()}
    slowest = _slowest(run)
    means["slowest 1 %"] = dict(zip(SPANS, slowest.mean(axis=1).tolist(), strict=True))
    requests["slowest 1 %"] = slowest.shape[1]
    note = f"Means in {unit.name}, over the same requests as the latencies above. Spans add up to the gap of each request."
    spans = [span for span in SPANS if any(mean_s[span] > 0 for mean_s in means.values())]
    bars = _bars(means, requests, spans, unit)
    return card.box("From first to second token", note, bars + _table(plans, spans, unit), wide=True)


def _slowest(run: ReportedRun) -> np.ndarray:
    """The spans of the hundredth part of the requests, at least one, with the longest gaps."""
    spans_s = run.ledger.spans_s[:, run.measured[run.ledger.request_id]]
    num_requests = spans_s.shape[1]
    first = num_requests - max(1, num_requests // 100)
    return spans_s[:, np.argpartition(spans_s.sum(axis=0), first)[first:]]


def _bars(means: Mapping[str, Mapping[str, float]], requests: Mapping[str, int], spans: list[str], unit: TimeUnit) -> str:
    longest_s = max(sum(mean_s.values()) for mean_s in means.values())
    rows = []
    for name, mean_s in means.items():
        parts, total_s = [], sum(mean_s.values())
        for span in spans:
            text = unit.text(mean_s[span])
            label = text if mean_s[span] >= LABELLED_SHARE * longest_s else ""
            style, title = f"width:{100 * mean_s[span] / total_s:.2f}%", f"{span} {text} {unit.name}"
            parts.append(f'<i class="{LOOKS[span][0]}" style="{style}" title="{title}">{label}</i>')
        style = f"width:{LONGEST * total_s / longest_s:.2f}%"
        rows.append(
            f"<dt>{escape(name)}<small>{count(requests[name])} request{'s' if requests[name] != 1 else ''}</small></dt>"
            f'<dd><span class="stack" style="{style}">{"".join(parts)}</span><b>{unit.text(total_s)}</b></dd>'
        )
    legend = "".join(f'<li><i class="square {LOOKS[span][0]}"></i>{escape(span)}</li>' for span in spans)
    return f'<dl class="stacks">{"".join(rows)}</dl><ul class="legend">{legend}</ul>'


def _table(plans: Mapping[str, Any], spans: list[str], unit: TimeUnit) -> str:
    header = ["", *(f"{name}<br>{key}" for name in plans for key in (*STATISTICS, "share"))]
    rows = []
    for span in spans:
        cells = [f"{span}<small>{LOOKS[span][1]}</small>"]
        for figures in plans.values():
            cells += [unit.text(figures["span_s"][span][key]) for key in STATISTICS]
            cells.append(share(figures["share"][span]))
        rows.append(cells)
    gaps = [cell for of in plans.values() for cell in (*(unit.text(of["gap_s"][key]) for key in STATISTICS), "")]
    rows.append(["gap<small>first to second token</small>", *gaps])
    return card.table(header, rows)
