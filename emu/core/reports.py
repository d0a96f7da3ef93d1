"""Load reports: what machines have done, told to the scheduler every so often and not at once."""

import copy
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from math import floor

from emu.core.pools import MachineLoad
from emu.core.request import Request


class Reports:
    """Every machine reports every `period_s` seconds, machine i of n at i/n of each period.

    Until then the scheduler's view of it is stale (SPLITWISE.md §4): prefills and decodes that have ended still count, while
    what the scheduler has assigned itself counts at once.
    """

    def __init__(self, period_s: float, num_machines: int) -> None:
        self._period_s = period_s
        self._num_machines = num_machines
        self._waiting: list[tuple[float, int, MachineLoad, Callable[[Request], None], Request]] = []
        self._num_put = 0

    def put(self, now_s: float, machine: MachineLoad, change: Callable[[Request], None], request: Request) -> None:
        """`change(request)` of `machine` happened at `now_s`, and will be in its next report."""
        phase = machine.index / self._num_machines
        due_s = (floor(now_s / self._period_s - phase) + 1 + phase) * self._period_s
        self._num_put += 1
        # As the request is now: it may have started again by then.
        heappush(self._waiting, (due_s, self._num_put, machine, change, copy.copy(request)))

    def take(self, now_s: float) -> Iterator[tuple[MachineLoad, Callable[[Request], None], Request]]:
        """What reports up to `now_s` tell, in order."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= now_s:
            yield heappop(waiting)[2:]
