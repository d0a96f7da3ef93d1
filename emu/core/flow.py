"""One flow that shares its links: what of it may be sent, what is left to send, and what happens to it next.

A fluid: between its first piece and its last, bytes come into being evenly. So `produced(t)` is what full pieces have been
made, on average, and never more; at `until_s` the last piece is there, all at once. Sending never overtakes producing:

    waiting   -> following   the first piece is there: sent as produced, `demand` bytes/s at most
    following -> behind      its share is below that: from now on it takes what it can get
    behind    -> following   it has caught up
    any       -> released    all is there: it takes what it can get to its end
"""

from math import inf

from emu.core.messages import FlowRequested

RELATIVE = 1e-12  # rates are equal within this
CAUGHT_UP_S = 1e-10  # of production: a flow is behind only by more


class Flow:
    """A flow over `links`: the one into its destination and the one out of its source.

    At `as_of_s` there are `bytes_left`, which leave at `rate`. `next_s` is when its state changes by itself if its rate does
    not; minus infinity: its rate is to be set. `end_s` is when its last byte has left, known once it is released, and
    `announced_s` when it was last said to be through.
    """

    __slots__ = (
        "announced_s",
        "as_of_s",
        "bytes_left",
        "demand",
        "end_s",
        "first_s",
        "is_released",
        "latency_s",
        "links",
        "next_s",
        "num_catch_ups_left",
        "production",
        "rate",
        "request",
        "until_s",
    )

    def __init__(self, request: FlowRequested, links: tuple[int, int], latency_s: float, now_s: float) -> None:
        self.request = request
        self.links = links
        self.latency_s = latency_s
        self.as_of_s = now_s
        self.next_s = -inf
        self.bytes_left = float(request.num_bytes)
        self.rate = 0.0
        self.end_s = self.announced_s = inf
        self.until_s = request.produced_until_s
        self.is_released = self.until_s <= now_s
        self.first_s = self.production = 0.0
        # With no more of them than pieces, no set of flows can overtake each other for ever.
        self.num_catch_ups_left = request.num_pieces
        self.demand = inf
        if not self.is_released:
            produced_s = self.until_s - request.produced_from_s
            self.production = request.num_bytes / produced_s
            self.first_s = request.produced_from_s + produced_s / request.num_pieces
            if self.first_s > now_s:
                self.demand = 0.0

    def step(self, at_s: float) -> None:
        """`next_s`, `at_s`, has come, and it is not the end."""
        if at_s >= self.until_s:
            self.is_released, self.demand = True, inf
        else:  # the first piece is there, or it has caught up
            if self.demand:
                self.num_catch_ups_left -= 1
            self.demand = self.production
        self.next_s = -inf

    def look(self, now_s: float) -> None:
        """Whether it is still behind, before links are divided anew."""
        if self.demand == inf and not self.is_released and self._backlog(now_s) <= self.production * CAUGHT_UP_S:
            self.demand = self.production

    def set_rate(self, rate: float, now_s: float) -> None:
        """Send at `rate` from now on."""
        self.bytes_left = max(0.0, self.bytes_left - self.rate * (now_s - self.as_of_s))
        self.as_of_s, self.rate = now_s, rate
        if self.is_released:
            self.next_s = self.end_s = now_s + self.bytes_left / rate
        elif not self.demand:
            self.next_s = self.first_s
        else:
            self.next_s = self.until_s
            if rate < self.production * (1 - RELATIVE):
                if self.num_catch_ups_left:
                    self.demand = inf
            elif self.demand == inf and rate > self.production:
                self.next_s = min(self.until_s, now_s + max(0.0, self._backlog(now_s)) / (rate - self.production))

    def _backlog(self, now_s: float) -> float:
        """Bytes produced and not sent."""
        sent = self.request.num_bytes - self.bytes_left + self.rate * (now_s - self.as_of_s)
        return self.production * (now_s - self.first_s) - sent
