"""A flow beside others that neither slow it down nor are slowed down by it: its end is a formula of what they produce."""

from emu.core.flow import Flow
from emu.core.messages import FlowRequested


class Forecast:
    """A flow over `links` that is to be through at `end_s`, if it is in no burst while another on its links is.

    It is sent as produced, `production` bytes/s, but in two bursts, in which it takes what the production of others leaves:
    from `start_s`, until it has caught up at `caught_up_s` with what was there before, and from `until_s`, for its last piece.
    One that is all there, or does not catch up, has only the second, from its start on, and no `production` to be counted.
    `left` is what others leave of each link in the second, which ends by `latest_end_s` whoever joins.
    """

    def __init__(self, request: FlowRequested, links: tuple[int, int], latency_s: float, now_s: float) -> None:
        _, _, _, _, num_bytes, from_s, until_s, num_pieces = request
        self.request = request
        self.links = links
        self.latency_s = latency_s
        self.start_s = self.first_s = now_s
        if until_s > now_s:
            produced_s = until_s - from_s
            self.first_s = first_s = from_s + produced_s / num_pieces
            if first_s > now_s:
                self.start_s = first_s
            self.until_s, self.production, self.last_bytes = until_s, num_bytes / produced_s, num_bytes / num_pieces
        else:
            self.until_s, self.production, self.last_bytes = now_s, 0.0, float(num_bytes)

    def caught_up_at(self, rate: float) -> float:
        """When it has caught up if sent at `rate`, more than its production."""
        return self.start_s + self.production * (self.start_s - self.first_s) / (rate - self.production)

    def take(self, left_at_start: list[float], left_at_end: list[float], least_rate: float) -> None:
        """Take what is left of each link in each burst, bytes/s: `least_rate`, whoever joins. All, if it does not catch up."""
        self.first_rate = rate = min(left_at_start)
        self.left = left_at_end
        self.caught_up_s = self.start_s
        if self.production and (rate <= self.production or self.caught_up_at(rate) >= self.until_s):
            self.until_s, self.production, self.last_bytes = self.start_s, 0.0, float(self.request.num_bytes)
        elif self.production:
            self.caught_up_s = self.caught_up_at(rate)
        self.end_s = self.until_s + self.last_bytes / min(self.left)
        self.latest_end_s = self.until_s + self.last_bytes / least_rate

    def put_off(self, side: int, bytes_per_s: float) -> None:
        """Another produces that much for `links[side]` in the second burst."""
        self.left[side] -= bytes_per_s
        self.end_s = self.until_s + self.last_bytes / min(self.left)

    def as_flow(self, now_s: float) -> Flow:
        """What it is by now, before its end."""
        flow = Flow(self.request, self.links, self.latency_s, now_s)
        flow.announced_s = self.end_s + self.latency_s
        if now_s >= self.until_s:
            flow.rate = min(self.left)
            flow.bytes_left = self.last_bytes - flow.rate * (now_s - self.until_s)
        elif now_s >= self.caught_up_s:
            flow.rate = flow.demand = self.production
            flow.bytes_left -= flow.rate * (now_s - self.first_s)
        elif now_s >= self.start_s:
            flow.bytes_left -= self.first_rate * (now_s - self.start_s)
            flow.look(now_s)
            flow.rate = min(self.first_rate, flow.demand)
        flow.set_rate(flow.rate, now_s)
        return flow
