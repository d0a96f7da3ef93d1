"""A chart as inline SVG: axes, and the marks drawn on them. Colours are names of the page's palette."""

import json
from collections.abc import Sequence
from html import escape

import numpy as np

from emu.results.report.scale import Scale, TailScale

WIDTH, HEIGHT = 400, 216
LEFT, RIGHT, TOP, BOTTOM = 44.0, WIDTH - 12.0, 26.0, HEIGHT - 40.0


def x_scale(low: float, high: float, log: bool = False, per_unit: float = 1.0) -> Scale:
    """The horizontal axis of a figure."""
    return Scale(low, high, LEFT, RIGHT, log, per_unit)


def y_scale(high: float, log: bool = False) -> Scale:
    """The vertical axis of a figure: from 0, or with `log` from 1."""
    return Scale(1.0 if log else 0.0, high, BOTTOM, TOP, log).rounded()


class Figure:
    """One plot area. Marks are drawn in the order of the calls; `svg` closes the drawing."""

    def __init__(self, x: Scale, y: Scale | TailScale, x_label: str, y_label: str) -> None:
        self.x, self.y = x, y
        self._labels = (x_label, y_label)
        self._marks: list[str] = []
        self._legend: list[str] = []

    def line(self, x: np.ndarray, y: np.ndarray, name: str, colour: str, legend: str | None = None) -> None:
        """A line through the points, broken where `y` is NaN. The legend says `legend`, or its name; nothing where ''."""
        px, py = self.x.pixels(x), self.y.pixels(y)
        known = np.flatnonzero(~np.isnan(py))
        runs = np.split(known, np.flatnonzero(np.diff(known) > 1) + 1) if len(known) else []
        path = "".join("M" + _points(px[run], py[run]) for run in runs)
        self._marks.append(f'<path class="line {colour}" data-name="{escape(name)}" d="{path}"/>')
        if legend != "":
            self._legend.append(_legend_item("stroke", colour, legend or name))

    def steps(self, edges: np.ndarray, y: np.ndarray, name: str, colour: str) -> None:
        """Constant between two edges: `y` has one value a bin."""
        self.line(np.repeat(edges, 2)[1:-1], np.repeat(y, 2), name, colour)

    def stack(self, x: np.ndarray, layers: Sequence[tuple[np.ndarray, str, str]]) -> None:
        """Areas one upon the other, the first at the bottom: each its heights, its name and its colour."""
        px, below = self.x.pixels(x), np.zeros(len(x))
        for heights, name, colour in layers:
            above = below + heights
            path = _outline(px, self.y.pixels(below), self.y.pixels(above))
            self._marks.append(f'<path class="area {colour}" data-name="{escape(name)}" d="{path}"/>')
            self._legend.append(_legend_item("square", colour, name))
            below = above

    def band(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, name: str, colour: str) -> None:
        """A pale area between two lines, without numbers under the pointer."""
        path = _outline(self.x.pixels(x), self.y.pixels(low), self.y.pixels(high))
        self._marks.append(f'<path class="area pale {colour}" d="{path}"/>')
        self._legend.append(_legend_item("square pale", colour, name))

    def vertical(self, x: Sequence[float], name: str, colour: str) -> None:
        """Thin vertical lines over the whole height, one item in the legend."""
        path = "".join(f"M{px:.1f} {TOP}V{BOTTOM}" for px in self.x.pixels(np.array(x)).tolist())
        self._marks.append(f'<path class="vertical {colour}" d="{path}"/>')
        self._legend.append(_legend_item("dashes", colour, name))

    def marker(self, x: float, y: float, shape: str, colour: str, text: str) -> None:
        """A point of the shape `circle`, `square` or `diamond`, told in the legend as `text`, unless that is ''."""
        px, py = float(self.x.pixels(np.array(x))), float(self.y.pixels(np.array(y)))
        self._marks.append(f'<g class="marker {colour}" transform="translate({px:.1f} {py:.1f})">{SHAPES[shape]}</g>')
        symbol = f'<svg class="symbol" viewBox="-6 -6 12 12" aria-hidden="true"><g class="marker {colour}">'
        if text:
            self._legend.append(f"<li>{symbol}{SHAPES[shape]}</g></svg>{escape(text)}</li>")

    def label(self, x: float, y: float, text: str) -> None:
        """A few words beside a point: to its left where it is near the right edge."""
        px, py = float(self.x.pixels(np.array(x))), float(self.y.pixels(np.array(y)))
        is_right = px > RIGHT - 60
        place = f'class="end" x="{px - 7:.1f}"' if is_right else f'x="{px + 7:.1f}"'
        self._marks.append(f'<text {place} y="{py - 6:.1f}">{escape(text)}</text>')

    def svg(self, title: str) -> str:
        plot = json.dumps({"x": _axis_json(self.x), "y": _axis_json(self.y), "unit": list(self._labels)})
        return (
            f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" '
            f'data-plot="{escape(plot)}">{self._axes()}{"".join(self._marks)}</svg>'
        )

    def legend(self) -> str:
        return f'<ul class="legend">{"".join(self._legend)}</ul>'

    def _axes(self) -> str:
        x_label, y_label = (escape(label) for label in self._labels)
        grid, text = [], [f'<text x="4" y="12">{y_label}</text>']
        for py, label in self.y.ticks(6):
            if label:
                grid.append(f"M{LEFT} {py:.1f}H{RIGHT}")
                text.append(f'<text class="end" x="{LEFT - 6}" y="{py + 3.5:.1f}">{label}</text>')
        for px, label in self.x.ticks(7):
            grid.append(f"M{px:.1f} {BOTTOM}v{4 if label else 2.5}")
            if label:
                text.append(f'<text class="middle" x="{px:.1f}" y="{BOTTOM + 17}">{label}</text>')
        text.append(f'<text class="middle" x="{(LEFT + RIGHT) / 2:.0f}" y="{HEIGHT - 6}">{x_label}</text>')
        return f'<path class="grid" d="{"".join(grid)}"/>{"".join(text)}'


SHAPES = {
    "circle": '<circle r="4.5"/>',
    "square": '<path d="M-4 -4H4V4H-4Z"/>',
    "bar": '<path d="M-1.2 -6H1.2V6H-1.2Z"/>',
    "diamond": '<path d="M0 -5.5L5.5 0L0 5.5L-5.5 0Z"/>',
}


def _points(px: np.ndarray, py: np.ndarray) -> str:
    return " ".join(f"{x:.1f} {y:.1f}" for x, y in zip(px.tolist(), py.tolist(), strict=True))


def _outline(px: np.ndarray, below: np.ndarray, above: np.ndarray) -> str:
    """The area between two lines."""
    return "M" + _points(px, above) + "L" + _points(px[::-1], below[::-1]) + "Z"


def _axis_json(scale: Scale | TailScale) -> list[float]:
    if isinstance(scale, TailScale):
        return [scale.start_px, scale.end_px, scale.low, scale.high, 2]
    return [scale.start_px, scale.end_px, scale.low, scale.high, int(scale.log)]


def _legend_item(shape: str, colour: str, name: str) -> str:
    return f'<li><i class="{shape} {colour}"></i>{escape(name)}</li>'
