"""The events of one state machine, handled in order and at their time on the wall clock."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from emu.runtime.clock import WallClock
from emu.runtime.errors import RunError
from emu.runtime.timer import Timer

EVENTS_A_WAKE = 1_000_000  # more than any burst of a real run; seconds of work


class Inbox:
    """Hands each event to `handle(event, now_s, sender)` at its due time, in order of (due time, sender, sequence).

    A message that arrives after its due time is late: it is handled at once, as of now. `lead_s` is how long before its due
    time an event is handled: for a state machine whose answers are themselves timed, so that they are sent in time.
    Lateness, in emulated seconds, is kept for each message and each wake-up until it is taken.

    `fail(error)` gets what `handle` raises, or a RunError after EVENTS_A_WAKE events in one wake-up. The inbox handles
    nothing afterwards.
    """

    def __init__(
        self,
        clock: WallClock,
        handle: Callable[[Any, float, int], None],
        fail: Callable[[Exception], None],
        lead_s: float = 0.0,
    ) -> None:
        self._clock = clock
        self._handle = handle
        self._fail = fail
        self._lead_s = lead_s
        self._heap: list[tuple[float, int, int, object]] = []
        self._timer = Timer(self._wake)
        self._timer_s = float("inf")
        self._is_draining = False
        self._last_s = float("-inf")  # of the last event handled
        self.message_late_s: list[float] = []
        self.wakeup_late_s: list[float] = []

    def put_message(self, due_s: float, sender: int, seq: int, event: object) -> None:
        now_s = self._clock.now_s() + self._lead_s
        late_s = now_s - due_s
        if late_s > 0:
            self.message_late_s.append(late_s)
            due_s = now_s
        else:
            self.message_late_s.append(0.0)
        self.put(due_s, sender, seq, event)

    def put(self, at_s: float, sender: int, seq: int, event: object) -> None:
        """An event that carries its own time: an arrival, the end of a run. Time never runs back, however late it comes."""
        at_s = max(at_s, self._last_s)
        heappush(self._heap, (at_s, sender, seq, event))
        if at_s < self._timer_s and not self._is_draining:
            self._arm()

    def take_lateness(self) -> tuple[list[float], list[float]]:
        """Lateness of messages and of wake-ups since last taken."""
        taken = self.message_late_s, self.wakeup_late_s
        self.message_late_s, self.wakeup_late_s = [], []
        return taken

    @property
    def next_s(self) -> float:
        """Due time of the next event; infinite if there is none."""
        return self._heap[0][0] if self._heap else float("inf")

    def _arm(self) -> None:
        if self._heap:
            self._timer_s = self._heap[0][0]
            self._timer.set(self._clock.local(self._timer_s - self._lead_s))
        else:
            self._timer_s = float("inf")

    def _wake(self) -> None:
        now_s = self._clock.now_s() + self._lead_s
        if self._heap and now_s >= self._timer_s:
            self.wakeup_late_s.append(now_s - self._timer_s)
        self._is_draining = True
        try:
            self._drain(now_s)
        except Exception as error:  # asyncio would log it and go on
            self._fail(error)
            return  # still draining: no `put` arms the timer again
        self._is_draining = False
        self._arm()

    def _drain(self, now_s: float) -> None:
        num_events = 0
        while self._heap and self._heap[0][0] <= now_s:
            at_s, sender, _, event = heappop(self._heap)
            self._last_s = at_s
            self._handle(event, at_s, sender)
            num_events += 1
            if num_events == EVENTS_A_WAKE:
                raise RunError(f"does not get on: {num_events:,} events in a row, the last at {at_s:g} s")
