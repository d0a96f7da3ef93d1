"""A function known at a few points."""

from bisect import bisect_right
from collections.abc import Sequence


class PiecewiseLinear:
    """The line through two points (x, y) or more, x ascending; its first and last segments continue beyond the points."""

    __slots__ = ("_inner_x", "_slope", "_x", "_y", "last_slope")

    def __init__(self, x: Sequence[float], y: Sequence[float]) -> None:
        self._x, self._y, self._inner_x = tuple(x), tuple(y), tuple(x[1:-1])
        self._slope = tuple((y[i + 1] - y[i]) / (x[i + 1] - x[i]) for i in range(len(x) - 1))
        self.last_slope = self._slope[-1]

    def __call__(self, x: float) -> float:
        i = bisect_right(self._inner_x, x)
        return self._y[i] + self._slope[i] * (x - self._x[i])
