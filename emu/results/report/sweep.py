"""The page of a sweep: latencies and slowdowns against the load, a line a design, and all runs in a table."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

import numpy as np

from emu.results.distribution import MIN_FOR_P99
from emu.results.report import card
from emu.results.report.figure import BOTTOM, TOP, Figure, x_scale
from emu.results.report.page import document
from emu.results.report.quantity import NONE, count, duration, share, unit_of
from emu.results.report.scale import Scale
from emu.results.sweep_curves import SweepCurve, curves_of, illustrations, load_of, settings_of
from emu.results.sweep_table import FAILURE, FINISHED, MISSING, SUMMARY, is_usable, outcome, p99_mark_of, reasons_of

COLOURS = ("blue", "orange", "green", "purple", "yellow", "grey")
METRICS = (("TTFT", "ttft"), ("TBT", "tbt"), ("E2E", "e2e"))
STATISTICS = ("p50", "p90", "p99")
UNITS = {"workload.rate_rps": "load (requests/s)", "workload.rate_scale": "speed of the trace"}
TONES = {"VALID": "good", "ILLUSTRATIVE": "warn", "DEGRADED": "warn", "SATURATED": "warn"}
FIGURES = (
    ("Offered", "Arrivals a second.", "offered_rps", "requests/s"),
    ("Completed", "Finished requests a second.", "completed_rps", "requests/s"),
    ("Goodput", "Requests a second within all three p99 objectives.", "slo.goodput_rps", "requests/s"),
    ("Cost", "Per million output tokens.", "cost.dollars.per_million_output_tokens", "$"),
    ("Energy", "Per million output tokens.", "energy.kwh.per_million_output_tokens", "kWh"),
)
CSS = """
.slo { --ink: var(--bad); } .line.slo { stroke-dasharray: 6 4; stroke-width: 1.4; }
.dashed.line { stroke-dasharray: 3 3; } .legend i.dashed { border-top-style: dashed; }
.marker.hollow { fill: var(--card); stroke: var(--ink); }
.tone { font-weight: 600; color: var(--tone); background: none; }
tr:has(.refused) td, tr:has(.refused) th { color: var(--muted); }
td.text { overflow-wrap: anywhere; } .tone { white-space: nowrap; } .reason { display: block; min-width: 220px; }
.lines { margin: -6px 0 12px; }
.best { font-weight: 700; color: var(--good); }
"""
SHARED = ("model", "runtime", "seed", "timing.name", "timing.source", "timing.date", "timing.error", "workload.path")
NOTES = (
    "TTFT: arrival to first token. TBT: every gap between two tokens of a request. E2E: arrival to last token. Slowdown: a "
    "request's latency over that of the same request alone on the reference machine; the dashed red line is its objective.",
    "All designs at one load and seed serve the same requests.",
)
LINES = (
    "Lines hold only runs that are VALID, ILLUSTRATIVE or DEGRADED and not SATURATED; where there are several seeds, their "
    "mean. Hollow squares are runs that must not be compared; those beyond the chart stand at its edge."
)


def render_sweep(rows: Sequence[Mapping[str, Any]], title: str, load: str | None = None) -> str:
    """The page for these rows (`emu.results.sweep_table.sweep_rows`), curves against `load`. Raises SweepError."""
    load = load_of(rows, load)
    curves = curves_of(rows, load) if load else []
    sections = [
        f'<header><h1>{escape(title)}</h1><p class="subtitle">{escape(_subtitle(rows))}</p></header>',
        card.section("Runs", card.box("", "", _table(rows))),
        _shared(rows),
        *(
            _charts(curves, load)
            if load
            else [card.empty("", "No number but the seed varies: there is nothing to draw against.")]
        ),
        f"<footer>{''.join(f'<p>{escape(note)}</p>' for note in (*illustrations(rows), *NOTES))}</footer>",
    ]
    return document(title, sections, CSS)


def _subtitle(rows: Sequence[Mapping[str, Any]]) -> str:
    outcomes = [outcome(row) for row in rows]
    counts = ", ".join(f"{outcomes.count(name)} {name}" for name in dict.fromkeys(sorted(outcomes)))
    return f"{len(rows)} runs of a sweep: {counts}"


def _charts(curves: Sequence[SweepCurve], load: str) -> list[str]:
    label = UNITS.get(load, load)
    every = {column for curve in curves for runs in curve.runs for run in runs for column in run}
    slo = [(f"slo.limits.{metric}.{statistic}", metric, statistic) for _, metric in METRICS for statistic in STATISTICS]
    names = dict((metric, name) for name, metric in METRICS)
    latency = [
        _chart(
            f"{name} {statistic}", _p99_note(curves, statistic), curves, label, f"{metric}_s.{statistic}", None, seconds=True
        )
        for name, metric in METRICS
        for statistic in STATISTICS
    ]
    slowdown = [
        _chart(
            f"{names[metric]} slowdown {statistic}",
            _p99_note(curves, statistic),
            curves,
            label,
            f"{key}.value",
            _limit(curves, f"{key}.limit"),
        )
        for key, metric, statistic in slo
        if f"{key}.value" in every
    ]
    further = [_chart(name, note, curves, label, key, None, unit) for name, note, key, unit in FIGURES if key in every]
    sections = [card.section("Highest load within all objectives", _highest(curves, label))] if slowdown else []
    sections.append(card.section("Latency", f'<p class="note lines">{LINES}</p>', card.charts(*latency)))
    if slowdown:
        sections.append(card.section("Slowdown, against its objectives", card.charts(*slowdown)))
    return [*sections, card.section("Throughput, cost and energy", card.charts(*further))]


def _chart(
    title: str,
    note: str,
    curves: Sequence[SweepCurve],
    label: str,
    key: str,
    limit: float | None,
    unit_name: str = "times",
    seconds: bool = False,
) -> str:
    values = [curve.values(key) for curve in curves]
    known = np.concatenate(values)
    known = known[~np.isnan(known)]
    if not len(known):
        return card.empty(title, "No run that may be compared has this figure.")
    unit = unit_of(float(np.median(known))) if seconds else None
    per_unit, unit_name = (unit.per_s, unit.name) if unit else (1.0, unit_name)
    loads = [load for curve in curves for load in curve.loads]
    high = max(known.max(), 1.15 * limit if limit else 0.0) * per_unit
    figure = Figure(
        _loads(min(loads), max(loads)),
        Scale(0.0, high, BOTTOM, TOP, False, per_unit).rounded(),
        label,
        unit_name,
    )
    is_told = False
    for index, (curve, y) in enumerate(zip(curves, values, strict=True)):
        colour = COLOURS[index % len(COLOURS)]
        style = f"{colour} dashed" if index >= len(COLOURS) else colour
        figure.line(np.array(curve.loads), y, curve.name, style)
        for load, value in zip(curve.loads, y.tolist(), strict=True):
            if not np.isnan(value):
                figure.marker(load, value, "circle", colour, "")
        for load, value in curve.refused(key):
            text = "" if is_told else "must not be compared"
            figure.marker(load, value, "square", f"{colour} hollow", text)
            is_told = True
    if limit:
        figure.line(np.array([min(loads), max(loads)]), np.array([limit, limit]), f"objective: {limit:g}", "slo")
    return card.chart(title, note, figure)


def _loads(low: float, high: float) -> Scale:
    """The axis of the loads: it ends where the data end, apart from half a marker."""
    room = 0.03 * (high - low) or 0.05 * abs(high) or 1.0
    return x_scale(low - room, high + room)


def _limit(curves: Sequence[SweepCurve], key: str) -> float | None:
    """The objective, where all runs have the same."""
    limits = {run[key] for curve in curves for runs in curve.runs for run in runs if run.get(key) is not None}
    return limits.pop() if len(limits) == 1 else None


def _highest(curves: Sequence[SweepCurve], label: str) -> str:
    highest = [curve.highest_load_within_slos() for curve in curves]
    known = [(curve.is_illustrative, load) for curve, load in zip(curves, highest, strict=True) if load is not None]
    best = dict(sorted(known))  # of each kind, for only those of a kind may be compared
    rows = []
    for curve, load in zip(curves, highest, strict=True):
        text = escape(curve.highest_load_text)
        is_best = load is not None and load == best[curve.is_illustrative]
        rows.append([escape(curve.name), f'<span class="best">{text}</span>' if is_best else text])
    note = (
        "Up to it, every run of the design may be compared and meets all nine objectives. The resolution is that of the sweep."
    )
    return card.box("", note, card.table(["", escape(label)], rows))


def _shared(rows: Sequence[Mapping[str, Any]]) -> str:
    """What all runs have in common, said once: '' where that is nothing."""
    names = [*list(rows[0])[1 : list(rows[0]).index("status")], *SHARED]
    same = {name: {str(row[name]) for row in rows if row.get(name) not in (None, "")} for name in names}
    facts = {name: values.pop() for name, values in same.items() if len(values) == 1 and name not in settings_of(rows)}
    return card.section("What all runs share", card.box("", "", card.facts(facts))) if facts else ""


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    settings = settings_of(rows)
    header = ["run", *map(escape, settings), "outcome", "reasons", *_latency_names()]
    header += ["offered/s", "completed/s", "objectives met", "within p99", "machines", "$", "$ / M output tokens"]
    return card.table(header, [_cells(row, settings) for row in rows], text_columns=range(len(settings) + 3))


def _latency_names() -> list[str]:
    return [f"{name} {statistic}" for name, _ in METRICS for statistic in ("p50", "p99")]


def _cells(row: Mapping[str, Any], settings: Sequence[str]) -> list[str]:
    tone, refused = TONES.get(outcome(row), "bad"), "" if is_usable(row) else " refused"
    reason = reasons_of(row)
    result = f'<span class="tone {tone}{refused}">{escape(outcome(row))}</span>'
    page = quote(row.get("page") or f"{row['run']}/{SUMMARY if row['status'] == FINISHED else FAILURE}")
    number = str(row["run"]) if row["status"] == MISSING else f'<a href="{page}">{row["run"]}</a>'
    latencies = [_latency(row, metric, statistic) for _, metric in METRICS for statistic in ("p50", "p99")]
    is_met = row.get("slo.met")
    met = "–" if is_met is None else "yes" if is_met else "no"
    return [
        number,
        *(escape(str(row[name])) for name in settings),
        result,
        f'<span class="reason">{escape(reason)}</span>' if reason else "",
        *latencies,
        count(row.get("offered_rps")),
        count(row.get("completed_rps")),
        met,
        share(row.get("slo.share_within_p99")),
        _machines(row),
        _amount(row.get("cost.dollars.total")),
        _amount(row.get("cost.dollars.per_million_output_tokens")),
    ]


def _machines(row: Mapping[str, Any]) -> str:
    """Such as '4 prefill dgx_h100, 2 decode dgx_h100'."""
    counts = {name.removeprefix("machines."): num for name, num in row.items() if name.startswith("machines.") and num}
    return escape(", ".join(f"{num:g} {name.replace('.', ' ')}" for name, num in counts.items())) or NONE


def _amount(dollars: float | None) -> str:
    return NONE if dollars is None else f"{dollars:,.2f}" if dollars >= 0.01 else f"{dollars:.3g}"


def _latency(row: Mapping[str, Any], metric: str, statistic: str) -> str:
    mark = p99_mark_of(row, statistic)
    return duration(row.get(f"{metric}_s.{statistic}")) + (f"<small>{mark.strip()}</small>" if mark else "")


def _p99_note(curves: Sequence[SweepCurve], statistic: str) -> str:
    """What a chart of p99 says where some of its runs have few requests."""
    numbers = [
        run["measured_requests"] for curve in curves for runs in curve.runs for run in runs if run.get("measured_requests")
    ]
    return f"Of as few as {min(numbers):g} requests." if statistic == "p99" and numbers and min(numbers) < MIN_FOR_P99 else ""
