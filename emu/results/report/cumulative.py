"""The chart of a distribution: the share of it at or below each value."""

from collections.abc import Mapping, Sequence

import numpy as np

from emu.results.distribution import p99_name
from emu.results.report import card
from emu.results.report.curve import Curve
from emu.results.report.figure import BOTTOM, TOP, Figure, x_scale
from emu.results.report.quantity import TimeUnit, duration, unit_of
from emu.results.report.scale import TailScale

PERCENTILES = (("p50", 0.50, "circle"), ("p90", 0.90, "square"), ("p99", 0.99, "diamond"))
SHARE_AXIS = TailScale(BOTTOM, TOP)
LONG_TAIL = 12.0  # a linear axis to the maximum would squeeze the median into the first 8 % of the width


def cumulative_chart(
    title: str, note: str, curve: Curve, colour: str, percentiles: Mapping[str, float], num_requests: int
) -> str:
    """One distribution of seconds, its p50, p90 and p99 marked at the values of `percentiles`.

    `num_requests` is how many requests the percentiles are of.
    """
    if not len(curve):
        return card.empty(title, "Nothing to show: no request got this far.")
    figure = _figure([curve])
    figure.line(*curve.points(), title, colour, legend="")
    for name, share, shape in PERCENTILES:
        told = p99_name(num_requests) if name == "p99" else name
        figure.marker(percentiles[name], share, shape, colour, f"{told} {duration(percentiles[name])}")
    return card.chart(title, note, figure)


def comparison_chart(title: str, note: str, curves: Sequence[tuple[str, str, Curve]], floor_s: float = 0.0) -> str:
    """Distributions of seconds beside each other: each its name, colour and values; below `floor_s` all are the same."""
    curves = [(name, colour, curve) for name, colour, curve in curves if len(curve)]
    if not curves:
        return card.empty(title, "Nothing to show: none happened.")
    figure = _figure([curve for _, _, curve in curves], floor_s)
    for name, colour, curve in curves:
        values, shares = curve.points()
        p50, p99 = (duration(curve.percentile(q)) for q in (50, 99))
        legend = f"{name}: p50 {p50}, {p99_name(len(curve), 'value')} {p99}"
        figure.line(np.maximum(values, floor_s), shares, name, colour, legend=legend)
    return card.chart(title, note, figure)


def ratio_chart(title: str, note: str, curve: Curve, colour: str, limits: Mapping[str, float]) -> str:
    """A distribution of ratios with the limits of its p50, p90 and p99: the curve has to pass to the left of each."""
    if not len(curve):
        return card.empty(title, "Nothing to show: no request got this far.")
    low, high = curve.quantile(0.001), max(float(curve.values[-1]), *limits.values())
    log = low > 0 and high > LONG_TAIL * max(curve.quantile(0.5), 1e-9)
    figure = Figure(x_scale(low, high, log).rounded(), SHARE_AXIS, "times" + ", logarithmic" * log, "share at or below (%)")
    figure.line(*curve.points(), title, colour, legend="")
    for name, share, _ in PERCENTILES:
        figure.marker(limits[name], share, "bar", "red", f"{name} limit {limits[name]:g}")
    return card.chart(title, note, figure)


def _figure(curves: Sequence[Curve], floor_s: float = 0.0) -> Figure:
    low = max(floor_s, min(curve.quantile(0.001) for curve in curves))
    median = max(curve.quantile(0.5) for curve in curves)
    high = max(float(curve.values[-1]) for curve in curves)
    unit = unit_of(median)
    log = low > 0 and high > LONG_TAIL * max(median, floor_s)
    x = x_scale(low * unit.per_s, high * unit.per_s, log, unit.per_s).rounded()
    return Figure(x, SHARE_AXIS, _time_label(unit, log), "share at or below (%)")


def _time_label(unit: TimeUnit, log: bool) -> str:
    return f"time ({unit.name}, logarithmic)" if log else f"time ({unit.name})"
