"""The cheapest size of a design (or that of least power, or fewest machines) that carries a rate within the SLOs.

Sizes form a grid, prompt machines by token machines; which of them carry the rate is seen only by running them. Three things
are taken to be so, and `every_size`, the full grid, is there to check them on small cases:

1. *Monotone*: what carries the rate carries it with one machine more. So in a column (one number of token machines) the least
   number of prompt machines is found by going down from the largest that would still be better than the best so far, in
   doubling strides and then by bisection; and where that largest one fails the column is done, with one run.
   Near the limit a run is decided by a few requests, and this may fail by a machine.
2. *Convex*: the border between what carries and what does not bends one way only, but for its steps of whole machines. So
   where a column has nothing better, and would not even with a machine more than that allows (a part of a machine might have
   sufficed), the columns beyond it have nothing better either: between a point there and the best so far lies this column.
   Where the caps forbid that machine, the column says nothing of those beyond it, and they are looked at.
3. A size that fails excludes every size that it covers (1 again), so it is run at most once and in no other column.

Bounding by the best so far needs no assumption: cost, power and machines are known without a run. No size beyond the caps is
run. So where none carries the rate, the largest of each column is.

Overloaded clusters cost ten times the wall time of others. So the search goes down from sizes that carry the rate; only the
first one is looked for upwards, from what the work of the requests suggests.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from math import ceil

from emu.provisioning.design import Design, Size
from emu.provisioning.probe import Probe
from emu.provisioning.question import Caps, all_sizes, amount, largest_prompt_pool, token_pools

SLACK = 1e-9  # sums of prices are floats
GROWTH = 1.25  # of both pools, until the first size carries the rate

Run = Callable[[Size, float], Probe]


@dataclass(frozen=True, slots=True)
class Best:
    """The size that was asked for, and its run."""

    size: Size
    probe: Probe


def least(objective: str, design: Design, rate_rps: float, caps: Caps, run: Run) -> Best | None:
    """The size with the least `objective` that carries `rate_rps`; of equals the one whose tightest SLO has the most room.

    None where no size within the caps does. Raises what `run` raises.
    """
    return _Search(objective, design, rate_rps, caps, run).best()


def every_size(objective: str, design: Design, rate_rps: float, caps: Caps, run: Run) -> Best | None:
    """As `least`, from a run of each size within the caps."""
    found = [Best(size, probe) for size in all_sizes(caps, design) if (probe := run(size, rate_rps)).met]
    return min(found, key=lambda best: rank(objective, design, best), default=None)


def imbalance(size: Size, needed: tuple[float, float]) -> float:
    """How far the pools of a size are from the proportion of what is needed."""
    return abs(size.num_token * needed[0] - size.num_prompt * needed[1]) / sum(size)


def rank(objective: str, design: Design, best: Best) -> tuple[float, float, Size]:
    worst_margin = best.probe.worst_margin
    assert worst_margin is not None  # it is met
    return round(amount(objective, design, best.size), 6), -worst_margin, best.size


@dataclass(slots=True)
class _Search:
    objective: str
    design: Design
    rate_rps: float
    caps: Caps
    run: Run
    failed: list[Size] = field(default_factory=list)

    def best(self) -> Best | None:
        best = self._first()
        if best is None:
            return None
        best = self._column(best.size.num_token, best)
        for step in (1, -1) if self.design.is_split else ():
            best = self._sideways(best, step)
        return self._roomiest(best)

    def _first(self) -> Best | None:
        """Any size that carries the rate: near the estimate, or one of the largest that the caps allow."""
        needed = self.design.needed(self.rate_rps)
        size = Size(*map(ceil, needed))
        while self.caps.allow(self.design, size):
            if self._carries(size):
                return self._at(size)
            size = Size(*(ceil(number * GROWTH) for number in size))
        columns = token_pools(self.caps, self.design)
        largest = [Size(largest_prompt_pool(self.caps, self.design, number), number) for number in columns]
        largest.sort(key=lambda at: imbalance(at, needed))
        return next((self._at(at) for at in largest if self._carries(at)), None)

    def _sideways(self, best: Best, step: int) -> Best:
        """Columns from the best so far on, until none beyond can be better."""
        num_token, columns = best.size.num_token + step, token_pools(self.caps, self.design)
        while num_token in columns:
            better = self._column(num_token, best)
            if better is best:
                bound = self._better_bound(num_token, best)
                larger = Size(bound + 1, num_token)
                if not bound or (self.caps.allow(self.design, larger) and not self._carries(larger)):
                    break
            best, num_token = better, num_token + step
        return best

    def _column(self, num_token: int, best: Best) -> Best:
        """The least of the column, where that is better than `best`."""
        good = self._better_bound(num_token, best)
        if not good or not self._carries(Size(good, num_token)):
            return best
        low, stride = 0, 1  # no size is known to carry the rate up to `low`, and `good` does
        while good > 1:
            at = max(1, good - stride)
            if not self._carries(Size(at, num_token)):
                low = at
                break
            good, stride = at, 2 * stride
        while good - low > 1:
            middle = (good + low) // 2
            good, low = (middle, low) if self._carries(Size(middle, num_token)) else (good, middle)
        return self._at(Size(good, num_token))

    def _roomiest(self, best: Best) -> Best:
        """Of the sizes next to each other that cost the same and carry the rate, the one with the most room."""
        equals, limit = [best], amount(self.objective, self.design, best.size)
        for step in (1, -1) if self.design.is_split else ():
            for num_token in count(best.size.num_token + step, step):
                size = Size(self._bound(num_token, limit * (1 + SLACK)), num_token)
                is_equal = all(size) and amount(self.objective, self.design, size) >= limit * (1 - SLACK)
                if not is_equal or not self._carries(size):
                    break
                equals.append(self._at(size))
        return min(equals, key=lambda equal: rank(self.objective, self.design, equal))

    def _better_bound(self, num_token: int, best: Best) -> int:
        return self._bound(num_token, amount(self.objective, self.design, best.size) * (1 - SLACK))

    def _bound(self, num_token: int, limit: float) -> int:
        """The most prompt machines with which this column is within the caps and takes at most `limit`; 0 for none."""
        num_prompt = (
            largest_prompt_pool(self.caps, self.design, num_token) if num_token >= self.design.smallest.num_token else 0
        )
        while num_prompt and amount(self.objective, self.design, Size(num_prompt, num_token)) > limit:
            num_prompt -= 1
        return num_prompt

    def _at(self, size: Size) -> Best:
        return Best(size, self.run(size, self.rate_rps))

    def _carries(self, size: Size) -> bool:
        if any(failed.covers(size) for failed in self.failed):
            return False
        met = self.run(size, self.rate_rps).met
        if not met:
            self.failed.append(size)
        return met
