"""The links whose flows are forecasts: none of them slows down another."""

from collections.abc import Iterable, Sequence
from math import inf

from emu.core.flow import Flow
from emu.core.forecast import Forecast
from emu.core.messages import FlowRequested

ROOM = 0.5  # of a link is left by what is produced for it: so who is in a burst has the most, and the others all they want

Asked = tuple[FlowRequested, tuple[int, int], float, float]  # what a `Forecast` is made of


class Forecasts:
    """Links of `capacity` bytes/s each, by number.

    `busy_until_s[link]` is when they all are over for certain; infinity: its flows are no forecasts. Of a flow that came to
    free links a forecast is made only when another joins it: until then it is in `alone`, on both.
    """

    def __init__(self, capacity: Sequence[float]) -> None:
        self._capacity = capacity
        self.busy_until_s = [-inf] * len(capacity)
        self.alone: list[Asked | None] = [None] * len(capacity)
        self._flows_on: list[list[Forecast]] = [[] for _ in capacity]

    def on(self, link: int, now_s: float) -> list[Forecast]:
        """The flows on a link that are not over."""
        if self.busy_until_s[link] <= now_s:
            self.alone[link] = None
            self._flows_on[link] = []
        elif (asked := self.alone[link]) is not None:
            flow = Forecast(*asked)
            rates = [self._capacity[link] for link in flow.links]
            flow.take(rates, rates, ROOM * min(rates))
            for each in flow.links:
                self.alone[each] = None
                self._flows_on[each] = [flow]
                self.busy_until_s[each] = flow.latest_end_s
        else:
            self._flows_on[link] = [flow for flow in self._flows_on[link] if flow.end_s > now_s]
        return self._flows_on[link]

    def add(self, asked: Asked) -> Iterable[Forecast] | None:
        """Add a flow if it and those on its links only go on as they are; returns those with a new end.

        None if there is more to it: one is in a burst while another is or starts, or there is no `ROOM`.
        """
        new = Forecast(*asked)
        links, start_s, until_s, production = new.links, new.start_s, new.until_s, new.production
        inward, outward = links
        at_start = [self._capacity[inward], self._capacity[outward]]
        at_end = at_start.copy()
        least_rate = ROOM * min(at_start)
        # Its bursts are over by then, whoever joins.
        caught_up_s, end_s = start_s, until_s + new.last_bytes / least_rate
        if production and (production >= least_rate or (caught_up_s := new.caught_up_at(least_rate)) >= until_s):
            return None
        later: list[tuple[Forecast, int]] = []
        for side, link in enumerate(links):
            if self.busy_until_s[link] == inf:
                return None
            room = self._capacity[link] * ROOM - production
            for other in self.on(link, asked[3]):
                if (
                    (other.caught_up_s > start_s and other.start_s < caught_up_s)
                    or (other.until_s < caught_up_s and other.latest_end_s > start_s)
                    or (other.caught_up_s > until_s and other.start_s < end_s)
                    or (other.until_s < end_s and other.latest_end_s > until_s)
                ):
                    return None
                room -= other.production
                if other.start_s <= start_s < other.until_s:
                    at_start[side] -= other.production
                if other.start_s <= until_s < other.until_s:
                    at_end[side] -= other.production
                elif start_s <= other.until_s < until_s:
                    later.append((other, side))
            if room < 0.0:
                return None
        new.take(at_start, at_end, least_rate)
        told: dict[Forecast, None] = {new: None}
        for other, side in later:
            other.put_off(side, production)
            told[other] = None
        for link in links:
            self._flows_on[link].append(new)
            if end_s > self.busy_until_s[link]:
                self.busy_until_s[link] = end_s
        return told

    def take_out(self, links: Iterable[int], now_s: float) -> list[Flow]:
        """Take out the flows on these links and on those of them in turn, as what they are by now."""
        flows: list[Flow] = []
        fresh = list(links)
        while fresh:
            for forecast in self.on(fresh.pop(), now_s):
                flows.append(forecast.as_flow(now_s))
                forecast.end_s = -inf  # taken
                fresh += forecast.links
        return flows
