"""How long the steps of each real machine took over what its timing model says. Nothing to say where all are emulated."""

from html import escape

import numpy as np

from emu.results.report import card
from emu.results.report.figure import BOTTOM, TOP, Figure
from emu.results.report.quantity import SECONDS, count, share
from emu.results.report.run import ROLES, ReportedRun
from emu.results.report.scale import Scale
from emu.results.shadow import KINDS, Shadow
from emu.results.speed import speed_text

MAX_NUM_SHOWN = 12  # machines with a chart each: those that drift most
HIGHEST = 3.0  # times the median: what took longer, such as in a pause of the host, is drawn at the edge


def shadow_section(run: ReportedRun) -> str:
    if not run.shadows:
        return ""
    roles = {machine.name: machine.role for machine in run.record.machines}
    shown = sorted(run.shadows, key=_drift, reverse=True)[:MAX_NUM_SHOWN]
    cards = [_chart(run, shadow, ROLES[roles[shadow.machine]]) for shadow in run.shadows if shadow in shown]
    speed = f'<p class="note">Speed of the real machines: {escape(speed_text(run.summary["speed"]))}.</p>'
    return card.section("Real machines and their timing models", speed, card.charts(*cards))


def _drift(shadow: Shadow) -> float:
    return 0.0 if shadow.worst_window is None else abs(shadow.worst_window.drift)


def _chart(run: ReportedRun, shadow: Shadow, colour: str) -> str:
    title, timeline = f"Steps of {shadow.machine}", run.rate_timeline
    if not len(shadow.ratio):
        return card.empty(title, "The machine ran no step.")
    bins, low, middle, high = _by_bin(timeline.index(shadow.start_s), shadow.ratio, (0.1, 0.5, 0.9))
    figure = _figure(run, shadow, low, high)
    is_stated = ~np.isnan(shadow.stated_error)
    if is_stated.any():
        times_s = shadow.start_s[is_stated]
        num_steps = timeline.sums(times_s)
        there = num_steps > 0
        error = timeline.sums(times_s, shadow.stated_error[is_stated])[there] / num_steps[there]
        figure.band(timeline.middles_s[there], 1 - error, 1 + error, "stated error", "grey")
    times_s = timeline.middles_s[bins]
    figure.band(times_s, low, high, "p10 to p90", colour)
    figure.line(times_s, middle, "median", colour)
    _probes(run, shadow.machine, figure)
    run.mark_events(figure)
    return card.chart(title, _note(shadow), figure)


def _probes(run: ReportedRun, machine: str, figure: Figure) -> None:
    """The machine's probe steps over those in the calibration, where that is known: what of a drift is the host's."""
    probes, ratios = run.columns.probe_steps, run.probe_ratios
    [index] = (spec.index for spec in run.record.machines if spec.name == machine)
    shown = (probes.machine == index) & ~np.isnan(ratios)
    if shown.any():
        bins, middle = _by_bin(run.rate_timeline.index(probes.time_s[shown]), ratios[shown], (0.5,))
        figure.line(run.rate_timeline.middles_s[bins], np.clip(middle, figure.y.low, figure.y.high), "probe steps", "green")


def _figure(run: ReportedRun, shadow: Shadow, low: np.ndarray, high: np.ndarray) -> Figure:
    error = np.nanmax(shadow.stated_error, initial=0.0)
    median = shadow.median()
    highest = float(high.max()) if median is None else min(float(high.max()), HIGHEST * median)
    y = Scale(min(float(low.min()), 1 - error), max(highest, 1 + error), BOTTOM, TOP).rounded()
    return run.figure_on(y, f"measured / predicted, in bins of {run.rate_width}")


def _by_bin(index: np.ndarray, values: np.ndarray, quantiles: tuple[float, ...]) -> tuple[np.ndarray, ...]:
    """The bins that have values, and each of these quantiles (the value at that rank) of every one."""
    order = np.lexsort((values, index))
    bins, first, num_values = np.unique(index[order], return_index=True, return_counts=True)
    return bins, *(values[order[first + ((num_values - 1) * quantile).astype(int)]] for quantile in quantiles)


def _note(shadow: Shadow) -> str:
    medians = ((name, shadow.median(kind)) for kind, name in enumerate(KINDS))
    by_kind = ", ".join(f"{name} {median:.2f} x" for name, median in medians if median is not None)
    note = f"{count(len(shadow.ratio))} steps; median by kind: {by_kind}."
    worst = shadow.worst_window
    if worst is not None:
        stated = "none stated" if worst.stated_error is None else f"stated error {share(worst.stated_error)}"
        note += f" Worst {worst.num_steps} steps: {1 + worst.drift:.2f} x, from {SECONDS.text(worst.start_s)} s on ({stated})."
    return note
