"""The KV caches that went from prefill to decode machines: bytes, rates and times."""

import numpy as np

from emu.results.handover import wire_and_link_s
from emu.results.report import card
from emu.results.report.cumulative import comparison_chart
from emu.results.report.curve import Curve
from emu.results.report.gap import gap_box
from emu.results.report.quantity import count, share, size
from emu.results.report.run import ReportedRun


def handover_section(run: ReportedRun) -> str:
    if not len(run.columns.transfers):
        none = "No KV cache was handed over: every request decoded where it was prefilled, or none got that far."
        return card.section("KV cache hand-over", card.charts(card.empty("No hand-overs", none)))
    return card.section("KV cache hand-over", card.charts(_bytes_so_far(run), _rate(run), _wire(run)), gap_box(run))


def _bytes_so_far(run: ReportedRun) -> str:
    timeline = run.timeline
    total = np.concatenate([[0.0], np.cumsum(timeline.sums(run.columns.transfers.received_s, _num_bytes(run)))])
    figure = run.figure(total[-1] / 1e9, "GB")
    figure.line(timeline.edges_s, total / 1e9, "handed over, as modelled", "green")
    run.mark_events(figure)
    return card.chart("KV bytes handed over", _moved_note(run), figure)


def _moved_note(run: ReportedRun) -> str:
    kv = run.record.kv
    if kv.payload_scale == 0:
        return f"{size(run.summary['kv']['bytes_modelled'])} modelled; no real bytes moved."
    return (
        f"{size(kv.bytes_moved)} really moved: {count(kv.verified)} verified, {count(kv.incidents['corrupt'])} corrupt, "
        f"{count(kv.overruns)} overran."
    )


def _rate(run: ReportedRun) -> str:
    timeline = run.rate_timeline
    rate = timeline.sums(run.columns.transfers.received_s, _num_bytes(run)) / timeline.width_s
    figure = run.figure(rate.max() / 1e9, "GB/s")
    figure.steps(timeline.edges_s, rate / 1e9, "received, as modelled", "green")
    run.mark_events(figure)
    return card.chart("Hand-over rate", f"Summed over all links, per {run.rate_width}.", figure)


def _wire(run: ReportedRun) -> str:
    """The chart of real copies beside the model's, where there were any."""
    counted = run.measured[run.ledger.request_id]
    wire_s, link_s = wire_and_link_s(run.ledger, counted, run.columns, run.record.cluster)
    if not len(wire_s):
        return ""
    curves = [("really", "purple", Curve.of(wire_s)), ("by the model", "green", Curve.of(link_s))]
    note = (
        f"How long any of a hand-over's bytes were on the wire, {share(run.record.kv.payload_scale)} of its KV cache; by the "
        "model all of it, on links of its own."
    )
    return comparison_chart("Time on the wire", note, curves, floor_s=1e-5)


def _num_bytes(run: ReportedRun) -> np.ndarray:
    return run.columns.transfers.num_tokens * float(run.record.model.kv_bytes_per_token)
