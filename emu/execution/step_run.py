"""A run of steps in flight: its boundaries, and how many of them the machine has been told of."""

from bisect import bisect_left, bisect_right


class StepRun:
    """Steps that end at `boundaries_s`, one after the other, unless the run is cut.

    The last boundary ends the run; the earlier ones are told as `StepsPassed`, only when something else happens first.
    """

    __slots__ = ("boundaries_s", "num_told")

    def __init__(self, boundaries_s: list[float]) -> None:
        self.boundaries_s = boundaries_s
        self.num_told = 0

    @property
    def end_s(self) -> float:
        return self.boundaries_s[-1]

    def pass_until(self, now_s: float, inclusive: bool) -> tuple[float, ...]:
        """The boundaries before `now_s` (or at it, if `inclusive`), less the last one and those told already."""
        bisect = bisect_right if inclusive else bisect_left
        num_passed = bisect(self.boundaries_s, now_s, self.num_told, len(self.boundaries_s) - 1)
        passed = tuple(self.boundaries_s[self.num_told : num_passed])
        self.num_told = num_passed
        return passed

    def cut(self) -> None:
        """End the run at the first boundary that has not been told: call `pass_until` first."""
        del self.boundaries_s[self.num_told + 1 :]

    def rest(self) -> tuple[float, ...]:
        """The boundaries not yet told, the last one included."""
        return tuple(self.boundaries_s[self.num_told :])
