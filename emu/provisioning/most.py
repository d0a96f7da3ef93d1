"""The size of a design that carries the highest rate within the SLOs, under caps on its cost, power or machines.

What is taken to be so (`every_size`, the full grid, is there to check it on small cases):

1. *Monotone*: a machine more never lowers the goodput. So only the largest sizes that the caps allow are looked at: for each
   number of token machines the one with the most prompt machines.
2. What fails at a rate fails at all higher ones, as `goodput.py` takes it. So a size is first run at a rate that would better
   the best so far by the tolerance: where that fails the size is done, with one run.
3. *Convex*: which sizes carry a rate has a border that bends one way only, but for its steps of whole machines. So where a
   size does not better the best, and would not even with a prompt machine more (a part of one might have sufficed), the sizes
   beyond it, with still more or still fewer token machines, do not either. The caps forbid that machine; but one more of N
   lets a size carry at most (N + 1) / N of its rate, so the size itself is run at a rate that is lower by as much. A gain in
   steps of less than the tolerance each may be missed.

The rate found is thus within the tolerance of the highest, for bisection and bettering each stop there.
"""

from collections.abc import Iterable

from emu.core import setting
from emu.provisioning.design import Design, Size
from emu.provisioning.goodput import DIGITS, bisect
from emu.provisioning.least import Best, Run, imbalance
from emu.provisioning.question import COST, Caps, all_sizes, amount, largest_prompt_pool, token_pools


class Rates:
    """The rates that are searched: from `low_rps` to `high_rps`, to a relative `tolerance`. Raises SettingError."""

    def __init__(self, low_rps: float, high_rps: float, tolerance: float) -> None:
        self.low_rps = setting.positive("--low-rps", low_rps)
        self.high_rps = setting.positive("--high-rps", high_rps)
        self.tolerance = setting.between("--tolerance", tolerance, 1e-4, 1)
        if low_rps > high_rps:
            raise setting.SettingError(f"--low-rps={low_rps:g}: expected at most --high-rps={high_rps:g}")


def most(design: Design, rates: Rates, caps: Caps, run: Run) -> Best | None:
    """The size within the caps with the highest goodput, and its run at that rate. None where none carries the lowest."""
    needed = design.needed(rates.high_rps)
    largest = [Size(largest_prompt_pool(caps, design, number), number) for number in token_pools(caps, design)]
    start = min(range(len(largest)), key=lambda at: imbalance(largest[at], needed))
    best = _goodput(largest[start], rates, rates.low_rps, design.guess_rps(largest[start]), run)
    for sizes in (largest[start + 1 :], largest[:start][::-1]):
        best = _along(sizes, best, rates, run)
    return best


def every_size(design: Design, rates: Rates, caps: Caps, run: Run) -> Best | None:
    """As `most`, from the goodput of each size within the caps; of equals the cheapest."""
    found = [_goodput(size, rates, rates.low_rps, rates.low_rps, run) for size in all_sizes(caps, design)]
    return max(filter(None, found), key=lambda best: (best.probe.rate_rps, -amount(COST, design, best.size)), default=None)


def _along(sizes: Iterable[Size], best: Best | None, rates: Rates, run: Run) -> Best | None:
    for size in sizes:
        low_rps = rates.low_rps if best is None else _rounded(best.probe.rate_rps * (1 + rates.tolerance))
        if low_rps > rates.high_rps:
            break
        better = _goodput(size, rates, low_rps, low_rps, run)
        if better is None and best is not None:
            without_a_machine_rps = _rounded(low_rps * size.num_prompt / (size.num_prompt + 1))
            if not run(size, max(without_a_machine_rps, rates.low_rps)).met:
                break
        best = better or best
    return best


def _rounded(rate_rps: float) -> float:
    return float(f"{rate_rps:.{DIGITS}g}")


def _goodput(size: Size, rates: Rates, low_rps: float, guess_rps: float, run: Run) -> Best | None:
    """None where the size does not carry `low_rps`."""
    found = bisect(lambda rate_rps: run(size, rate_rps), low_rps, rates.high_rps, rates.tolerance, guess_rps)
    return None if found.at_limit is None else Best(size, found.at_limit)
