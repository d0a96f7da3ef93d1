"""Links and the flows on them, whose rates are kept max-min fair. The cost of a change follows its neighbourhood."""

from collections.abc import Iterable, Sequence

from emu.core.fair_share import max_min_rates
from emu.core.flow import RELATIVE, Flow

FULL = 1 - 1e-9  # of its capacity: a link is taken for full from here on


class Links:
    """Links of `capacity` bytes/s each, by number. `flows_on[link]` are the flows on one, in the order in which they came."""

    def __init__(self, capacity: Sequence[float]) -> None:
        self._capacity = capacity
        self.flows_on: list[dict[Flow, None]] = [{} for _ in capacity]

    def divide(self, links: Iterable[int], now_s: float) -> list[Flow]:
        """Divide anew what the flows on `links` share with each other and, over full links, with others.

        Returns the flows whose rates are new.
        """
        whole = set(links)  # links all of whose flows are divided
        flows: dict[Flow, None] = {}
        fresh = list(links)
        while fresh:
            for link in fresh:
                for flow in self.flows_on[link]:
                    if flow not in flows:
                        flow.look(now_s)
                        flows[flow] = None
            # A link on which there are others is part of it if it was full,
            fresh = []
            capacity: dict[int, float] = {}
            others: dict[int, float] = {}
            for flow in flows:
                for link in flow.links:
                    if link in whole:
                        capacity[link] = self._capacity[link]
                    elif link not in capacity:
                        others_rate = sum([flow.rate for flow in self.flows_on[link] if flow not in flows])
                        capacity[link] = self._capacity[link] - others_rate
                        if others_rate:
                            others[link] = others_rate
                            if self._is_full(link, sum([flow.rate for flow in self.flows_on[link]])):
                                fresh.append(link)
            if not fresh:
                rates = max_min_rates([flow.links for flow in flows], [flow.demand for flow in flows], capacity)
                # and if it is full now. A link that is neither is the bottleneck of none.
                for link, load in others.items():
                    load += sum([rate for flow, rate in zip(flows, rates, strict=True) if link in flow.links])
                    if self._is_full(link, load):
                        fresh.append(link)
            whole.update(fresh)
        changed: list[Flow] = []
        for flow, rate in zip(flows, rates if flows else (), strict=True):
            if flow.next_s <= now_s or abs(rate - flow.rate) > RELATIVE * flow.rate:
                flow.set_rate(rate, now_s)
                changed.append(flow)
        return changed

    def _is_full(self, link: int, bytes_per_s: float) -> bool:
        return bytes_per_s >= self._capacity[link] * FULL
