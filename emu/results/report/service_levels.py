"""The objectives of the run, one by one, and what the run would cost."""

from collections.abc import Iterator, Mapping
from typing import Any

from emu.results.distribution import p99_name
from emu.results.report import card
from emu.results.report.cumulative import ratio_chart
from emu.results.report.curve import Curve
from emu.results.report.quantity import NONE, count, duration
from emu.results.report.run import ReportedRun
from emu.results.slo import STATISTICS

TBT = {"mean": "each request's mean", "gaps": "every gap"}
WAYS = {"mean": "mean", "gaps": "every_gap"}  # as the keys of the summary call them
TOTALS = {
    "total": "in all",
    "per_million_output_tokens": "a million output tokens",
    "per_million_tokens": "a million tokens, prompt or output",
    "per_request": "a request",
}


def service_level_section(run: ReportedRun) -> str:
    boxes = f'<div class="columns first">{_objectives(run.summary["slo"])}{_cost(run)}</div>'
    return card.section("Service levels and cost", boxes, _slowdowns(run))


def _slowdowns(run: ReportedRun) -> str:
    """The distributions that the objectives are about, with their limits; '' where none was judged."""
    slow, slo = run.slowdowns, run.summary["slo"]
    if slow is None or slo["met"] is None:
        return ""
    tbt = Curve.of(slow.tbt) if slo["tbt"] == "mean" else Curve.of(slow.gaps, slow.gap_weights)
    curves = {"ttft": (Curve.of(slow.ttft), "blue"), "tbt": (tbt, "orange"), "e2e": (Curve.of(slow.e2e), "purple")}
    charts = []
    for metric, (curve, colour) in curves.items():
        limits = {name: level["limit"] for name, level in slo["limits"][metric].items()}
        note = "An objective holds where the curve passes to the left of its bar."
        charts.append(ratio_chart(f"{metric.upper()} slowdown", note, curve, colour, limits))
    return f'<div class="wide">{card.charts(*charts)}</div>'


def _objectives(slo: Mapping[str, Any]) -> str:
    title = "Service level objectives"
    if slo["met"] is None:
        return card.box(title, f"Not judged: {slo['reason']}", "")
    [other] = set(TBT) - {slo["tbt"]}
    limits, decides, beside = slo["limits"], TBT[slo["tbt"]], TBT[other]
    rows = [
        ["TTFT", *_cells(limits["ttft"])],
        [f"TBT<small>{decides}: decides</small>", *_cells(limits["tbt"])],
        ["E2E", *_cells(limits["e2e"])],
        [f"TBT<small>{beside}: for comparison</small>", *_cells(slo[f"tbt_by_{WAYS[other]}"])],
    ]
    share, goodput_rps = slo["share_within_p99"], slo["goodput_rps"]
    lines = [
        f"{_mark(slo['met'])} with TBT by {decides}, {_mark(slo[f'met_by_{WAYS[other]}'])} by {beside}.",
        *([f"{count(slo['unfinished'])} of {count(slo['judged'])} requests did not finish."] if slo["unfinished"] else []),
        f"Requests within all three p99 limits: {NONE if share is None else f'{100 * share:.1f} %'}"
        f"{'' if goodput_rps is None else f', {goodput_rps:,.2f} a second'}.",
    ]
    note = f"Times over those of the same request alone on {slo['reference']}. Margin: limit / value − 1."
    finished = slo["judged"] - slo["unfinished"]
    table = card.table(["slowdown", *(p99_name(finished) if name == "p99" else name for name in STATISTICS)], rows)
    return card.box(title, note, f"<p>{'<br>'.join(lines)}</p>{table}")


def _cells(levels: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for level in levels.values():
        limit, value, margin = level["limit"], level["value"], level["margin"]
        if value is None:
            yield f"{NONE}<small>limit {limit:g}</small>"
        else:
            tone = "good" if value <= limit else "bad"
            text = f"{100 * margin:+,.0f} %".replace("-", "−")
            yield f'<b class="{tone}">{value:.3f}</b><small>limit {limit:g}, margin {text}</small>'


def _mark(is_met: bool) -> str:
    return f'<b class="{"good" if is_met else "bad"}">{"met" if is_met else "missed"}</b>'


def _cost(run: ReportedRun) -> str:
    cost, energy = run.summary["cost"], run.summary["energy"]
    amounts = (cost["machine_hours"], cost["dollars"], energy["kwh"])
    rows = [[name, *(_amount(amount[key]) for amount in amounts)] for key, name in TOTALS.items()]
    power_w = energy["mean_power_w"]
    note = (
        f"From 0 to the run's end at {duration(run.summary['emulated_s'])}, drain included; tokens and requests of finished "
        f"requests. power={energy['method']}, {NONE if power_w is None else f'{power_w / 1e3:,.1f} kW'} on average."
    )
    return card.box("Cost and energy", note, card.table(["", "machine-hours", "dollars", "kWh"], rows))


def _amount(value: float | None) -> str:
    """Four digits, whatever the size."""
    return NONE if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
