"""A function known at a few points."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from emu.core.timing.model import TimingError


class PiecewiseLinear:
    """The line through the points (x, y), x ascending; its first and last segments continue beyond the points.

    Raises TimingError if there are fewer than two points, or x and y differ in length, or x does not ascend.
    """

    __slots__ = ("_inner_x", "_slope", "_x", "_y", "last_slope")

    def __init__(self, x: Sequence[float], y: Sequence[float]) -> None:
        if len(x) < 2 or len(x) != len(y):
            raise TimingError(f"a timing curve needs two points or more, as many x as y, not {len(x)} x and {len(y)} y")
        if any(b <= a for a, b in pairwise(x)):
            raise TimingError(f"the x of a timing curve must ascend: {list(x)}")
        self._x, self._y, self._inner_x = tuple(x), tuple(y), tuple(x[1:-1])
        self._slope = tuple((y[i + 1] - y[i]) / (x[i + 1] - x[i]) for i in range(len(x) - 1))
        self.last_slope = self._slope[-1]

    def __call__(self, x: float) -> float:
        i = bisect_right(self._inner_x, x)
        return self._y[i] + self._slope[i] * (x - self._x[i])
