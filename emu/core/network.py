"""The links: which flow gets which share of which NIC, and so when each is through."""

from heapq import heappop, heappush
from math import inf

from emu.core.flow import Flow
from emu.core.links import Links
from emu.core.messages import Cancelled, CompleteFlow, FlowRequested, MachineDied, SetTimer, SharesChange

TOGETHER_S = 1e-10  # what ends within this ends at once: what is left of it takes no share


class Network:
    """The NICs of all machines: `nic_bytes_per_s[i]` into machine i and as much out of it, at the same time.

    Flows share them max-min fairly; shares change when a flow starts, ends, or has all its bytes produced. A flow is through
    `link_latency_s` after its last byte has left, the larger of its two machines'. Without `contention` each has both its NICs
    to itself.

    A flow alone on its links is a formula. When another joins it they become `Flow`s, each with the time of its next change;
    a timer makes the network look when the next of all is due, as ends of others may change then. An event that comes late
    changes nothing but when that is told. The cost of an event follows its neighbourhood, the flows that share a full link
    directly or through others, and not the size of the cluster.
    """

    def __init__(self, nic_bytes_per_s: list[float], link_latency_s: list[float], contention: bool = True) -> None:
        self._num_machines = len(nic_bytes_per_s)
        self._capacity = nic_bytes_per_s * 2  # link i goes out of machine i, link num_machines + i into it
        self._link_latency_s = link_latency_s
        self._contention = contention
        # When a link is free again: minus infinity, the end of the flow that has it alone, or infinity where flows share it.
        self._busy_until_s = [-inf] * len(self._capacity)
        self._alone: list[tuple[FlowRequested, float] | None] = [None] * len(self._capacity)  # a flow and its start
        self._links = Links(self._capacity)
        self._sharing = self._links.flows_on
        self._changes: list[tuple[float, int, Flow]] = []  # a heap of when flows change by themselves
        self._num_changes = 0
        self._timers: set[float] = set()
        self._retimed: dict[Flow, None] = {}  # while an event is handled

    def handle(self, event: tuple, now_s: float) -> list[tuple]:
        """Take one event (FlowRequested, Cancelled, MachineDied, SharesChange) and return what is to be done, in order.

        That is a `CompleteFlow` for each flow whose end is known now and was not, or has changed, and a timer.
        """
        if type(event) is not FlowRequested:
            return self._on_other(event, now_s)
        request_id, attempt, source, destination, num_bytes, _, until_s, _ = event
        outward, inward = source, self._num_machines + destination
        rate, other_rate = self._capacity[outward], self._capacity[inward]
        if other_rate < rate:
            rate = other_rate
        latency_s, other_latency_s = self._link_latency_s[source], self._link_latency_s[destination]
        if other_latency_s > latency_s:
            latency_s = other_latency_s
        busy_until_s = self._busy_until_s
        if busy_until_s[outward] > now_s or busy_until_s[inward] > now_s:
            return self._share(event, (inward, outward), latency_s, now_s)
        end_s = now_s + num_bytes / rate
        if until_s > now_s:
            end_s = Flow(event, (inward, outward), latency_s, now_s).lone_end_s(rate)
        if self._contention:
            busy_until_s[outward] = busy_until_s[inward] = end_s
            self._alone[outward] = self._alone[inward] = (event, now_s)
        return [CompleteFlow(request_id, attempt, destination, end_s + latency_s)]

    def rates(self, now_s: float) -> dict[tuple[int, int], float]:
        """Bytes/s of each flow in flight after all events up to now, by (request, attempt); empty without contention."""
        rates = {}
        for link in range(self._num_machines):
            if self._busy_until_s[link] == inf:
                rates |= {flow.request[:2]: flow.rate for flow in self._sharing[link]}
            elif self._busy_until_s[link] > now_s:
                request, started_s = self._alone[link]
                flow = self._as_flow(request, started_s, now_s)
                rates[request[:2]] = flow.rate
        return rates

    # --- events -------------------------------------------------------------------------------------------------------

    def _share(self, event: FlowRequested, links: tuple[int, int], latency_s: float, now_s: float) -> list[tuple]:
        """Start a flow beside others."""
        self._catch_up(now_s)
        for link in links:
            self._unfold(link, now_s)
        flow = Flow(event, links, latency_s, now_s)
        self._add(flow)
        self._change([flow], now_s)
        return self._answer()

    def _on_other(self, event: Cancelled | MachineDied | SharesChange, now_s: float) -> list[tuple]:
        self._catch_up(now_s)
        match event:
            case Cancelled(request_id, attempt):
                self._drop(range(self._num_machines), now_s, request_id, attempt)
            case MachineDied(machine=machine):
                self._drop((machine, self._num_machines + machine), now_s)
            case SharesChange():
                self._timers = {at_s for at_s in self._timers if at_s > now_s}
        return self._answer()

    def _drop(self, links: range | tuple, now_s: float, request_id: int | None = None, attempt: int = 0) -> None:
        """Drop the flows on `links`, or those of them of a request's attempts up to this one."""

        def is_meant(request: FlowRequested) -> bool:
            return request_id is None or (request.request_id == request_id and request.attempt <= attempt)

        for link in links:
            if self._alone[link] is not None and is_meant(self._alone[link][0]):
                self._unfold(link, now_s)
            for flow in [flow for flow in self._sharing[link] if is_meant(flow.request)]:
                flow.next_s = inf
                self._change([flow], now_s)
                self._retimed.pop(flow, None)

    def _answer(self) -> list[tuple]:
        actions: list[tuple] = []
        for flow in self._retimed:
            at_s = flow.end_s + flow.latency_s
            if flow.is_released and at_s != flow.announced_s:
                flow.announced_s = at_s
                request = flow.request
                actions.append(CompleteFlow(request.request_id, request.attempt, request.destination, at_s))
        self._retimed = {}
        changes = self._changes
        while changes and changes[0][2].next_s != changes[0][0]:
            heappop(changes)
        if changes and changes[0][0] not in self._timers:
            self._timers.add(changes[0][0])
            actions.append(SetTimer(changes[0][0], SharesChange()))
        return actions

    # --- flows on links -----------------------------------------------------------------------------------------------

    def _as_flow(self, request: FlowRequested, started_s: float, now_s: float) -> Flow:
        """What a flow that was alone on its links is by now, before its end."""
        links = (self._num_machines + request.destination, request.source)
        latency_s = max(self._link_latency_s[request.source], self._link_latency_s[request.destination])
        flow = Flow(request, links, latency_s, started_s)
        end_s = self._busy_until_s[links[0]]
        flow.announced_s = end_s + latency_s
        flow.sent_alone(min(self._capacity[link] for link in links), end_s, now_s)
        return flow

    def _unfold(self, link: int, now_s: float) -> None:
        """Make a flow of the one that has this link alone, if there is one."""
        if self._busy_until_s[link] <= now_s or self._alone[link] is None:
            return
        flow = self._as_flow(*self._alone[link], now_s)
        self._add(flow)
        if flow.next_s < now_s:
            flow.set_rate(flow.rate, now_s)
        self._push(flow)

    def _add(self, flow: Flow) -> None:
        for link in flow.links:
            self._alone[link] = None
            self._busy_until_s[link] = inf
            self._sharing[link][flow] = None

    def _push(self, flow: Flow) -> None:
        self._num_changes += 1
        heappush(self._changes, (flow.next_s, self._num_changes, flow))

    def _catch_up(self, now_s: float) -> None:
        """Let happen what was to happen up to now, each at its time."""
        changes = self._changes
        while changes and changes[0][0] <= now_s:
            at_s = changes[0][0]
            changed: list[Flow] = []
            while changes and changes[0][0] <= at_s + TOGETHER_S:
                change_s, _, flow = heappop(changes)
                if flow.next_s != change_s:
                    continue
                changed.append(flow)
                if flow.is_released:
                    flow.next_s = inf
                else:
                    flow.step(change_s)
            if changed:
                self._change(changed, at_s)

    def _change(self, changed: list[Flow], now_s: float) -> None:
        """Give these flows other shares, and their neighbours; those that are over leave."""
        fits = len(changed) == 1 and self._links.fit(changed[0], now_s)
        leaving = [flow for flow in changed if flow.next_s == inf]
        for flow in leaving:
            for link in flow.links:
                del self._sharing[link][flow]
                if not self._sharing[link]:
                    self._busy_until_s[link] = -inf
        if fits:
            retimed = [] if leaving else changed
        else:
            retimed = self._links.divide([link for flow in changed for link in flow.links], now_s)
        for flow in retimed:
            self._push(flow)
            self._retimed[flow] = None
