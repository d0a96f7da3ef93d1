"""The links: which flow gets which share of which NIC, and so when each is through."""

from emu.core.messages import CompleteFlow, FlowRequested


class Network:
    """The NICs of all machines. Each flow runs at the slower of its two NICs, as if alone.

    `nic_bytes_per_s[i]` and `link_latency_s[i]` are machine i's; a flow takes the longer of its two latencies once.
    """

    def __init__(self, nic_bytes_per_s: list[float], link_latency_s: list[float]) -> None:
        self._nic_bytes_per_s = nic_bytes_per_s
        self._link_latency_s = link_latency_s

    def handle(self, event: FlowRequested, now_s: float) -> list[CompleteFlow]:
        """Start the flow at `now_s` and say when it will be through."""
        source, destination = event.source, event.destination
        latency_s = max(self._link_latency_s[source], self._link_latency_s[destination])
        rate = min(self._nic_bytes_per_s[source], self._nic_bytes_per_s[destination])
        at_s = now_s + latency_s + event.num_bytes / rate
        return [CompleteFlow(event.request_id, event.attempt, destination, at_s)]
