"""The links: which flow gets which share of which NIC, and so when each is through."""

from collections.abc import Iterable
from heapq import heappop, heappush
from math import inf

from emu.core.flow import Flow
from emu.core.forecasts import Asked, Forecasts
from emu.core.links import Links
from emu.core.message import Message
from emu.core.messages import Cancelled, FlowRequested, MachineDied, SetFlowEnd, SetTimer, SharesChange, make

TOGETHER_S = 1e-10  # what ends within this ends at once: what is left of it takes no share


class Network:
    """The NICs of all machines: `nic_bytes_per_s[i]` into machine i and as much out of it, at the same time.

    Flows share them max-min fairly; shares change when a flow starts, ends, or has all its bytes produced. A flow is through
    `link_latency_s` after its last byte has left, the larger of its two machines'. Without `contention` each has both its NICs
    to itself.

    Ends are formulas (`Forecasts`) as long as no flow has to wait for another: on links not half full of what is being
    produced, nearly always. Where flows do compete they are `Flow`s (`Links`) until their links are free: each has the time
    of its next change, and a timer makes the network look when the next of all is due, as ends of others may change then. An
    event that comes late changes nothing but when that is told. The cost of an event follows its neighbourhood, the flows
    that share a link directly or through others, and not the size of the cluster.
    """

    def __init__(self, nic_bytes_per_s: list[float], link_latency_s: list[float], contention: bool = True) -> None:
        self._num_machines = len(nic_bytes_per_s)
        self._capacity = nic_bytes_per_s * 2  # link i goes out of machine i, link num_machines + i into it
        self._link_latency_s = link_latency_s
        self._contention = contention
        self._forecasts = Forecasts(self._capacity)
        self._busy_until_s, self._alone = self._forecasts.busy_until_s, self._forecasts.alone
        self._links = Links(self._capacity)
        self._sharing = self._links.flows_on
        self._changes: list[tuple[float, int, Flow]] = []  # a heap of when flows change by themselves
        self._num_changes = 0
        self._timers: set[float] = set()
        self._retimed: dict[Flow, None] = {}  # while an event is handled

    def handle(self, event: Message, now_s: float) -> list[Message]:
        """Take one event (FlowRequested, Cancelled, MachineDied, SharesChange) and return what is to be done, in order.

        That is a `SetFlowEnd` for each flow whose end is known now and was not, or has changed, and a timer.
        """
        if type(event) is not FlowRequested:
            return self._on_other(event, now_s)
        request_id, attempt, source, destination, num_bytes, from_s, until_s, num_pieces = event
        outward, inward = source, self._num_machines + destination
        rate, other_rate = self._capacity[outward], self._capacity[inward]
        if other_rate < rate:
            rate = other_rate
        latency_s, other_latency_s = self._link_latency_s[source], self._link_latency_s[destination]
        if other_latency_s > latency_s:
            latency_s = other_latency_s
        busy_until_s = self._busy_until_s
        if busy_until_s[outward] > now_s or busy_until_s[inward] > now_s:
            return self._join((event, (inward, outward), latency_s, now_s))
        end_s = now_s + num_bytes / rate
        if until_s > now_s:
            first_s = from_s + (until_s - from_s) / num_pieces
            if first_s > now_s:
                end_s += first_s - now_s
            last_end_s = until_s + num_bytes / num_pieces / rate
            if last_end_s > end_s:
                end_s = last_end_s
        if self._contention:
            busy_until_s[outward] = busy_until_s[inward] = end_s
            self._alone[outward] = self._alone[inward] = (event, (inward, outward), latency_s, now_s)
        return [make(SetFlowEnd, (request_id, attempt, destination, end_s + latency_s))]

    def rates(self, now_s: float) -> dict[tuple[int, int], float]:
        """Bytes/s of each flow in flight after all events up to now, by (request, attempt); empty without contention."""
        rates: dict[tuple[int, int], float] = {}
        for link in range(self._num_machines):
            if self._busy_until_s[link] == inf:
                rates |= {flow.request[:2]: flow.rate for flow in self._sharing[link]}
            else:
                rates |= {flow.request[:2]: flow.as_flow(now_s).rate for flow in self._forecasts.on(link, now_s)}
        return rates

    # --- events -------------------------------------------------------------------------------------------------------

    def _join(self, asked: Asked) -> list[Message]:
        """Start a flow beside others."""
        told = self._forecasts.add(asked)
        if told is None:
            event, links, latency_s, now_s = asked
            self._catch_up(now_s)
            self._share(links, now_s)
            flow = Flow(event, links, latency_s, now_s)
            self._add(flow)
            self._change([flow], now_s)
            return self._answer()
        actions: list[Message] = []
        for forecast in told:
            request_id, attempt, _, destination, _, _, _, _ = forecast.request
            actions.append(make(SetFlowEnd, (request_id, attempt, destination, forecast.end_s + forecast.latency_s)))
        return actions

    def _on_other(self, event: Message, now_s: float) -> list[Message]:
        self._catch_up(now_s)
        match event:
            case Cancelled(request_id, attempt):
                self._drop(range(self._num_machines), now_s, request_id, attempt)
            case MachineDied(machine=machine):
                self._drop((machine, self._num_machines + machine), now_s)
            case SharesChange():
                self._timers = {at_s for at_s in self._timers if at_s > now_s}
        return self._answer()

    def _drop(self, links: range | Message, now_s: float, request_id: int | None = None, attempt: int = 0) -> None:
        """Drop the flows on `links`, or those of them of a request's attempts up to this one."""

        def is_meant(request: FlowRequested) -> bool:
            return request_id is None or (request.request_id == request_id and request.attempt <= attempt)

        for link in links:
            if any(is_meant(flow.request) for flow in self._forecasts.on(link, now_s)):
                self._share([link], now_s)
            for flow in [flow for flow in self._sharing[link] if is_meant(flow.request)]:
                flow.next_s = inf
                self._change([flow], now_s)
                self._retimed.pop(flow, None)

    def _answer(self) -> list[Message]:
        actions: list[Message] = []
        for flow in self._retimed:
            at_s = flow.end_s + flow.latency_s
            if flow.is_released and at_s != flow.announced_s:
                flow.announced_s = at_s
                request = flow.request
                actions.append(SetFlowEnd(request.request_id, request.attempt, request.destination, at_s))
        self._retimed = {}
        changes = self._changes
        while changes and changes[0][2].next_s != changes[0][0]:
            heappop(changes)
        if changes and changes[0][0] not in self._timers:
            self._timers.add(changes[0][0])
            actions.append(SetTimer(changes[0][0], SharesChange()))
        return actions

    # --- flows on links -----------------------------------------------------------------------------------------------

    def _share(self, links: Iterable[int], now_s: float) -> None:
        """Have these links divided event by event until they are free, and those of their flows in turn."""
        for flow in self._forecasts.take_out(links, now_s):
            self._add(flow)
            self._push(flow)

    def _add(self, flow: Flow) -> None:
        for link in flow.links:
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
        for flow in changed:
            if flow.next_s == inf:
                for link in flow.links:
                    del self._sharing[link][flow]
                    if not self._sharing[link]:
                        self._busy_until_s[link] = -inf
        links = [link for flow in changed for link in flow.links]
        for flow in self._links.divide(links, now_s):
            self._push(flow)
            self._retimed[flow] = None
