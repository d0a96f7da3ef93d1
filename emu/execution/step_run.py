"""A run of steps in flight: its boundaries, and how many of them the machine has been told of."""

from bisect import bisect_left, bisect_right
from math import inf


class StepRun:
    """Steps that end at `boundaries_s`, one after the other, unless the run is cut.

    The last boundary, `end_s`, ends the run; the earlier ones are told as `StepsPassed`, only when something else happens
    first. `next_s` is the first of these that has not been told, `inf` where there is none.
    """

    __slots__ = ("boundaries_s", "end_s", "next_s", "num_told")

    def __init__(self, boundaries_s: list[float]) -> None:
        self.boundaries_s = boundaries_s
        self.end_s = boundaries_s[-1]
        self.next_s = boundaries_s[0] if len(boundaries_s) > 1 else inf
        self.num_told = 0

    def pass_until(self, now_s: float, inclusive: bool) -> tuple[float, ...]:
        """The boundaries before `now_s` (or at it, if `inclusive`), less the last one and those told already."""
        boundaries_s, num_told = self.boundaries_s, self.num_told
        num_early = len(boundaries_s) - 1
        num_passed = (bisect_right if inclusive else bisect_left)(boundaries_s, now_s, num_told, num_early)
        self.num_told = num_passed
        self.next_s = boundaries_s[num_passed] if num_passed < num_early else inf
        return tuple(boundaries_s[num_told:num_passed])

    def cut(self) -> None:
        """End the run at the first boundary that has not been told: call `pass_until` first."""
        del self.boundaries_s[self.num_told + 1 :]
        self.end_s = self.boundaries_s[-1]
        self.next_s = inf

    def rest(self) -> tuple[float, ...]:
        """The boundaries not yet told, the last one included."""
        return tuple(self.boundaries_s[self.num_told :])
