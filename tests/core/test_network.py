"""Flows that share NICs: hand-computed times, the definition of max-min fairness, and an independent simulation."""

from heapq import heapify, heappop, heappush
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.core.fair_share import max_min_rates
from emu.core.messages import Cancelled, FlowRequested, MachineDied, SetFlowEnd, SetTimer, SharesChange
from emu.core.network import Network

SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)


def exactly(times_s):
    return pytest.approx(times_s, rel=0, abs=1e-9)


def flow(number: int, source: int, destination: int, num_bytes: float) -> FlowRequested:
    """A flow whose bytes are all there."""
    return FlowRequested(number, 1, source, destination, num_bytes, 0.0, 0.0, 1)


def produced(number, source, destination, num_bytes, from_s, until_s, num_pieces) -> FlowRequested:
    return FlowRequested(number, 1, source, destination, num_bytes, from_s, until_s, num_pieces)


class Wire:
    """Runs a network: gives it events and the timers that it sets, and keeps what it says last of each flow."""

    def __init__(self, network: Network, notes_rates: bool = True) -> None:
        self.network = network
        self.notes_rates = notes_rates  # to ask for them must change nothing
        self.ends_s: dict[int, float] = {}
        self.rates: list[tuple[float, dict[int, float]]] = []  # bytes/s of each flow, from this time on
        self.num_told = self.num_timers = 0

    def run(self, events: list[tuple[float, tuple]], watch_s: tuple[float, ...] = ()) -> dict[int, float]:
        """`events` at their times. Returns when each flow is through. Notes the rates after each event and at `watch_s`."""
        queue = [(at_s, 1, number, event) for number, (at_s, event) in enumerate(events)]
        queue += [(at_s, 2, number, None) for number, at_s in enumerate(watch_s)]
        heapify(queue)
        while queue:
            now_s, _, _, event = heappop(queue)
            for action in self.network.handle(event, now_s) if event is not None else ():
                if type(action) is SetTimer:
                    assert action.at_s > now_s
                    self.num_timers += 1
                    heappush(queue, (action.at_s, 0, self.num_timers, action.message))
                else:
                    assert type(action) is SetFlowEnd
                    assert action.at_s >= now_s
                    assert self.ends_s.get(action.request_id, inf) > now_s, "it was through already"
                    self.ends_s[action.request_id] = action.at_s
                    self.num_told += 1
            if self.notes_rates and (not queue or queue[0][0] > now_s):
                rates = {number: rate for (number, _), rate in self.network.rates(now_s).items()}
                self.rates.append((now_s, rates))
        return self.ends_s


def ends(nic_bytes_per_s: list[float], *events: tuple[float, tuple], latency_s: float = 0.0) -> list[float]:
    wire = Wire(Network(nic_bytes_per_s, [latency_s] * len(nic_bytes_per_s)), notes_rates=False)
    ends_s = wire.run(list(events))
    assert wire.network.rates(max([*ends_s.values(), *(at_s for at_s, _ in events)])) == {}
    return [ends_s[number] for number in sorted(ends_s)]


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_ten_machines_send_to_one():
    # Ten flows of 10, 20, ... 100 bytes into a NIC of 10 bytes/s. Flow 0 has 1 byte/s and ends after 10 s; 90 bytes/s^-1 are
    # then shared by nine: 10 bytes more take 9 s, the next 8 s, and so on.
    flows = [(0.0, flow(number, number, 10, 10 * (number + 1))) for number in range(10)]
    assert ends([10.0] * 11, *flows) == exactly([10, 19, 27, 34, 40, 45, 49, 52, 54, 55])
    assert ends([10.0] * 11, *flows, latency_s=0.25) == exactly(
        [10.25, 19.25, 27.25, 34.25, 40.25, 45.25, 49.25, 52.25, 54.25, 55.25]
    )


def test_ten_that_are_alike_end_together():
    flows = [(0.0, flow(number, number, 10, 10**9 // 7)) for number in range(10)]
    wire = Wire(Network([1e9] * 11, [0.0] * 11))
    assert set(wire.run(flows).values()) == {wire.ends_s[0]}
    assert wire.ends_s[0] == exactly(10 * (10**9 // 7) / 1e9)
    assert wire.num_told == 1 + sum(range(2, 11)), "each start changes all, their end none"


@SETTINGS
@given(st.floats(0.0, 5.0), st.floats(0.0, 0.1), st.integers(1, 4), st.integers(2, 4), st.sampled_from([0.0, 0.137]))
def test_flows_alike_end_at_the_same_float(start_s, after_s, num_layers, num_alike, takes_s):
    """The first of them is alone on its links for an instant: that it is rounded otherwise must not put it last."""
    at_s = start_s + after_s
    alike = [(at_s, produced(1 + i, 0, 1, num_layers * 335_544_320, at_s, at_s + takes_s, 80)) for i in range(num_alike)]
    wire = Wire(Network([25e9, 25e9], [0.002, 0.002]), notes_rates=False)
    ends_s = wire.run([(start_s, flow(0, 0, 1, 10**9)), *alike])
    assert len({ends_s[event.request_id] for _, event in alike}) == 1


def test_shares_change_when_a_flow_starts_and_when_one_ends():
    # 100 bytes/s. Flow 0 alone for 1 s, then half of it until flow 1, of 50 bytes, ends at 2.0, when 50 of flow 0 are left.
    assert ends([100.0] * 3, (0.0, flow(0, 0, 2, 200)), (1.0, flow(1, 1, 2, 50))) == exactly([2.5, 2.0])


def test_directions_do_not_share():
    flows = [(0.0, flow(0, 0, 1, 100)), (0.0, flow(1, 1, 0, 100))]
    assert ends([100.0] * 2, *flows) == exactly([1.0, 1.0])


def test_flows_of_other_machines_are_left_alone():
    wire = Wire(Network([100.0] * 6, [0.0] * 6))
    wire.run([(0.0, flow(0, 0, 1, 100)), (0.0, flow(1, 2, 3, 100)), (0.5, flow(2, 4, 5, 100))])
    assert wire.ends_s == {0: 1.0, 1: 1.0, 2: 1.5}
    assert wire.num_told == 3


@pytest.mark.parametrize(
    ("nics", "rate"),
    [([200.0, 400.0], 200.0), ([400.0, 200.0], 200.0), ([400.0, 400.0], 400.0)],
)
def test_the_slower_nic_of_a_flow_is_its_rate(nics, rate):
    assert ends(nics, (0.0, flow(0, 0, 1, 400))) == exactly([400 / rate])


def test_bottlenecks_at_either_end():
    # A100s 0 and 1 of 200, H100s 2 and 3 of 400. Flow 0 (0 to 2) has 200, as its source has no more: so flow 1 (3 to 2) has
    # 200 of the 400 of machine 2. Machine 3 has 200 left for flow 2 (3 to 1), as much as machine 1 takes.
    nics = [200.0, 200.0, 400.0, 400.0]
    flows = [(0.0, flow(0, 0, 2, 400)), (0.0, flow(1, 3, 2, 400)), (0.0, flow(2, 3, 1, 400))]
    assert ends(nics, *flows) == exactly([2.0, 2.0, 2.0])
    # With flow 3 (0 to 1) the A100s share: flow 0 has 100 and flow 2 100, so flow 1 300, which ends at 4/3. Nothing is freed
    # for the others by that. They end at 4.
    flows.append((0.0, flow(3, 0, 1, 400)))
    assert ends(nics, *flows) == exactly([4.0, 4 / 3, 4.0, 4.0])


def test_three_flows_over_two_links():
    # The textbook's line: out of machine 0 go flows 0 and 1, of 90 bytes/s; into machine 3, of 60 bytes/s, go 1 and 2. The
    # inward link is the narrower: 30 each; flow 0 takes the other 60. Flow 1 and 2 end at 60/30 = 2. Flow 0: 120/60 = 2 too.
    nics = [90.0, 90.0, 90.0, 60.0]
    flows = [(0.0, flow(0, 0, 2, 150)), (0.0, flow(1, 0, 3, 60)), (0.0, flow(2, 1, 3, 90))]
    # At 2.0 flow 1 is through: flow 0 has 30 left at 90 bytes/s, flow 2 has 30 left at 60 bytes/s.
    assert ends(nics, *flows) == exactly([2 + 30 / 90, 2.0, 2.5])


def test_a_neighbour_of_a_neighbour_is_told():
    # Flow 0 (0 to 3) and 1 (1 to 3) have 50 each of machine 3. Flow 2 (1 to 2) shares machine 1's way out, which has 50 left.
    # When flow 0 ends at 1.0, flow 1 would have 100 of machine 3 but shares machine 1: 50 and 50, as before.
    nics = [100.0] * 4
    first = [(0.0, flow(0, 0, 3, 50)), (0.0, flow(1, 1, 3, 100)), (0.0, flow(2, 1, 2, 100))]
    assert ends(nics, *first) == exactly([1.0, 2.0, 2.0])
    # Flow 3 (0 to 2) at 1.0 into machine 2: nothing is free there either, 50 for it and 50 for flow 2.
    assert ends(nics, *first, (1.0, flow(3, 0, 2, 100))) == exactly([1.0, 2.0, 2.0, 2.5])


def test_the_larger_latency_is_added_once():
    network = Network([100.0, 100.0, 100.0], [0.001, 0.003, 0.002])
    wire = Wire(network)
    wire.run([(0.0, flow(0, 0, 2, 100)), (0.0, flow(1, 1, 2, 100)), (5.0, flow(2, 0, 1, 100))])
    assert [wire.ends_s[number] for number in range(3)] == exactly([2.002, 2.003, 6.003])


def test_what_has_left_is_not_slowed_down_by_what_comes():
    # Its last byte left at 1.0, when the other starts; it is on its way.
    assert ends([100.0] * 3, (0.0, flow(0, 0, 2, 100)), (1.0, flow(1, 1, 2, 100)), latency_s=0.5) == exactly([1.5, 2.5])


def test_a_timer_that_comes_late_changes_no_end():
    # Half each until flow 0 is through at 1.0; of that and of all that follows the network hears at 3.0 only.
    network = Network([100.0] * 3, [0.0] * 3)
    for event in (flow(0, 0, 2, 50), flow(1, 1, 2, 100)):
        network.handle(event, 0.0)
    assert network.handle(SharesChange(), 3.0) == [SetFlowEnd(1, 1, 2, exactly(1.5))]
    assert network.handle(flow(2, 0, 2, 100), 3.0) == [SetFlowEnd(2, 1, 2, exactly(4.0))]


def test_without_contention_each_has_its_link():
    network = Network([100.0] * 3, [0.0] * 3, contention=False)
    wire = Wire(network)
    wire.run([(0.0, flow(0, 0, 2, 100)), (0.0, flow(1, 1, 2, 100)), (0.5, flow(2, 0, 2, 100)), (0.6, Cancelled(2, 1))])
    assert wire.ends_s == {0: 1.0, 1: 1.0, 2: 1.5}
    assert network.rates(0.7) == {}


# --- called off -------------------------------------------------------------------------------------------------------


def test_a_cancelled_flow_gives_its_share_back():
    # 50 each from 0 to 1; then flow 1 has 100 for the other 50 bytes.
    events = [(0.0, flow(0, 0, 2, 100)), (0.0, flow(1, 1, 2, 100)), (1.0, Cancelled(0, 1))]
    wire = Wire(Network([100.0] * 3, [0.0] * 3))
    assert wire.run(events)[1] == exactly(1.5)
    assert wire.network.rates(1.2) == {}


def test_a_cancelled_flow_that_was_alone_leaves_its_links():
    events = [(0.0, flow(0, 0, 2, 100)), (0.5, Cancelled(0, 1)), (0.5, flow(1, 1, 2, 100))]
    assert Wire(Network([100.0] * 3, [0.0] * 3)).run(events)[1] == exactly(1.5)


@pytest.mark.parametrize("stale", [Cancelled(0, 1), Cancelled(7, 3)])
def test_only_attempts_up_to_the_cancelled_one_end(stale):
    second = flow(0, 0, 2, 100)._replace(attempt=2)
    events = [(0.0, second), (0.0, flow(1, 1, 2, 100)), (0.5, stale)]
    assert Wire(Network([100.0] * 3, [0.0] * 3)).run(events) == exactly({0: 2.0, 1: 2.0})


@pytest.mark.parametrize("machine", [0, 2])
def test_a_dead_machine_neither_sends_nor_receives(machine):
    # Machine 0 sends flow 0 to 2 and flow 1 to 3; machine 1 sends flow 2 to 3 and flow 3 to 2: 50 each. After 1 s either death
    # ends flow 0; of 0 also flow 1, of 2 also flow 3. Of what is left, both have all of the other's.
    flows = [(0, 0, 2), (1, 0, 3), (2, 1, 3), (3, 1, 2)]
    events = [(0.0, flow(*who, 200)) for who in flows]
    wire = Wire(Network([100.0] * 4, [0.0] * 4))
    wire.run([*events, (1.0, MachineDied(machine, "power"))], watch_s=(1.5,))
    assert dict(wire.rates)[1.5] == ({2: 50.0, 3: 50.0} if machine == 0 else {1: 50.0, 2: 50.0})
    left = [2, 3] if machine == 0 else [1, 2]
    assert [wire.ends_s[number] for number in left] == exactly([4.0, 4.0])


# --- produced while it is sent ----------------------------------------------------------------------------------------

# 100 bytes in ten pieces from 0 to 10 s: 10 bytes/s, the first at 1 s.
SLOWLY = produced(0, 0, 2, 100, 0.0, 10.0, 10)


@pytest.mark.parametrize(
    ("nic", "end_s"),
    [
        (100.0, 10.1),  # fast: the last piece is there at 10 and takes 0.1 s
        (10.0, 11.0),  # as fast as production: a piece behind, all along
        (5.0, 21.0),  # slow: as if sent from the first piece on
    ],
)
def test_alone(nic, end_s):
    assert ends([nic] * 3, (0.0, SLOWLY)) == exactly([end_s])
    assert ends([nic] * 3, (0.0, SLOWLY), latency_s=0.5) == exactly([end_s + 0.5])


@pytest.mark.parametrize(
    ("start_s", "end_s"),
    [
        (0.7, 10.5),  # before the first piece
        (6.0, 10.5),  # 50 bytes are there, and 10 a second more come: caught up at 11 - so not before the end of production
        (8.5, 13.5),  # 75 bytes are there; 30 are sent when all is
        (10.0, 15.0),
        (12.0, 17.0),
    ],
)
def test_asked_for_late(start_s, end_s):
    # At 20 bytes/s. From 6.0: 100 bytes take 5 s, to 11.0.
    expected = 11.0 if start_s == 6.0 else end_s
    assert ends([20.0] * 3, (start_s, SLOWLY)) == exactly([expected])


def test_one_piece_is_serialized():
    assert ends([20.0] * 3, (0.0, SLOWLY._replace(num_pieces=1))) == exactly([15.0])


def test_production_leaves_the_rest_of_the_nic_to_others():
    # Into 100 bytes/s. Flow 1 has 90 beside the 10 of flow 0: 180 bytes from 2 to 4. Flow 0's last piece at 10 has all 100.
    assert ends([100.0] * 3, (0.0, SLOWLY), (2.0, flow(1, 1, 2, 180))) == exactly([10.1, 4.0])


def test_it_falls_behind_and_catches_up():
    # Into 12 bytes/s. From 1 s as produced, 10. Flow 1, of 12 bytes, comes at 3: 6 each to 5, when flow 0 has sent 20 + 12 of
    # the 40 produced. Alone it makes up 2 bytes/s: the 8 by 9 s. At 10 it has sent 90; the last 10 take 10/12 s.
    wire = Wire(Network([12.0] * 3, [0.0] * 3))
    assert wire.run([(0.0, SLOWLY), (3.0, flow(1, 1, 2, 12))]) == exactly({0: 10 + 10 / 12, 1: 5.0})
    rates_of_it = [(at_s, rates.get(0)) for at_s, rates in wire.rates[:-1]]
    assert rates_of_it == [(0.0, 0.0), (3.0, 6.0), (5.0, 12.0), (exactly(9.0), 10.0), (10.0, 12.0)]


def test_the_share_falls_below_production_to_the_end():
    # Into 12 bytes/s. Flow 1, of 600 bytes, comes at 5.0: 40 bytes of flow 0 are sent, 60 at 6 bytes/s take to 15. Flow 1 has
    # 60 by then, and 540 at 12 take 45 s.
    assert ends([12.0] * 3, (0.0, SLOWLY), (5.0, flow(1, 1, 2, 600))) == exactly([15.0, 60.0])


def test_prompts_of_one_step_leave_together():
    # Two flows of one step out of a NIC of 100 bytes/s to two machines: the last pieces of 10 bytes have 50 bytes/s each.
    flows = [(0.5, SLOWLY), (0.5, produced(1, 0, 1, 100, 0.0, 10.0, 10))]
    assert ends([100.0] * 3, *flows) == exactly([10.2, 10.2])


def test_a_flow_to_come_takes_nothing_yet():
    # Its first piece is there at 1: until then flow 1 has the NIC.
    assert ends([100.0] * 3, (0.0, SLOWLY), (0.0, flow(1, 1, 2, 100))) == exactly([10.1, 1.0])


def test_flows_that_only_follow_their_production_need_no_timer():
    # Into 100 bytes/s, 10 of them for flow 0 to 10 s and for flow 1 to 12 s. Flow 2 has the other 80 from 5 s. So has flow 0,
    # and its own 10, for its last piece at 10 s, of 10 bytes; flow 1 has all for its own.
    wire = Wire(Network([100.0] * 5, [0.0] * 5))
    slowly = produced(1, 1, 2, 120, 0.0, 12.0, 12)
    assert wire.run([(0.5, SLOWLY), (0.7, slowly), (5.0, flow(2, 3, 2, 80))]) == exactly({0: 10 + 10 / 90, 1: 12.1, 2: 6.0})
    assert (wire.num_told, wire.num_timers) == (4, 0)
    # With flow 3 out of machine 0 at 10.105 s, when flow 0 would be through if it were alone, they do: 0.55 bytes of its last
    # piece are left. 50 each until they are sent, then 100 for the rest of flow 3.
    wire = Wire(Network([100.0] * 5, [0.0] * 5))
    wire.run([(0.5, SLOWLY), (0.7, slowly), (10.105, flow(3, 0, 4, 9.55))])
    assert wire.ends_s == exactly({0: 10.105 + 0.55 / 50, 3: 10.105 + 0.55 / 50 + 9 / 100, 1: 12.1})
    assert wire.num_timers


def test_what_was_alone_on_a_link_is_forgotten_when_it_is_over():
    # Flow 0 ends at 1 s. Flow 2 joins flow 1 out of machine 0, and flow 3 flow 2 into machine 2: 90 bytes/s for it.
    late = SLOWLY._replace(request_id=1, destination=3, produced_from_s=2.0, produced_until_s=12.0)
    later = late._replace(request_id=2, destination=2, num_bytes=120, produced_until_s=14.0, num_pieces=12)
    flows = [(0.0, flow(0, 0, 2, 100)), (2.0, late), (3.0, later), (5.0, flow(3, 1, 2, 90))]
    assert ends([100.0] * 4, *flows) == exactly([1.0, 12 + 10 / 90, 14.1, 6.0])


def test_catching_up_beside_another():
    # Flow 1 is 30 bytes behind when it joins flow 0 at 5 s: it has 90 bytes/s, 80 more than come, for 3/8 s. Half through that
    # flow 2 joins, of 45 bytes: both have 45, of which flow 1 makes up 35 a second for 3/7 s; then flow 2 has 80.
    wire = Wire(Network([100.0] * 4, [0.0] * 4))
    late = SLOWLY._replace(request_id=1, source=1, produced_from_s=1.0, produced_until_s=11.0)
    wire.run([(0.0, SLOWLY), (5.0, late), (5 + 3 / 16, flow(2, 3, 2, 45))], watch_s=(5.1, 5.2, 5.7))
    assert [dict(wire.rates)[at_s] for at_s in (5.1, 5.2, 5.7)] == [
        {0: 10, 1: 90},
        {0: 10, 1: 45, 2: 45},
        {0: 10, 1: 10, 2: 80},
    ]
    assert wire.ends_s == exactly({0: 10 + 10 / 90, 1: 11.1, 2: 5 + 3 / 16 + 3 / 7 + (45 - 45 * 3 / 7) / 80})


# --- by definition ----------------------------------------------------------------------------------------------------

capacities = st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0, 8.0]), min_size=2, max_size=6)


@SETTINGS
@given(st.data())
def test_no_rate_can_be_raised_without_lowering_one_that_is_no_larger(data):
    capacity = dict(enumerate(data.draw(capacities)))
    links = st.sampled_from(sorted(capacity))
    paths = data.draw(st.lists(st.tuples(links, links).filter(lambda path: path[0] != path[1]), min_size=1, max_size=12))
    demands = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.3, inf]), min_size=len(paths), max_size=len(paths)))
    assert_max_min_fair(paths, demands, capacity, max_min_rates(paths, demands, capacity))


def assert_max_min_fair(paths, demands, capacity, rates) -> None:
    """Feasible, and each flow has its demand or a bottleneck: a full link where none has more (Bertsekas and Gallager)."""
    load = {link: sum(rate for path, rate in zip(paths, rates, strict=True) if link in path) for link in capacity}
    for link, total in load.items():
        assert total <= capacity[link] * (1 + 1e-9)
    for path, rate, demand in zip(paths, rates, demands, strict=True):
        assert rate <= demand
        largest = {link: max(other for p, other in zip(paths, rates, strict=True) if link in p) for link in path}
        has_bottleneck = any(load[link] > capacity[link] * (1 - 1e-8) and rate > largest[link] * (1 - 1e-8) for link in path)
        assert rate == demand or has_bottleneck


NUM_MACHINES = 5
machines = st.integers(0, NUM_MACHINES - 1)
routes = st.tuples(machines, machines).filter(lambda route: route[0] != route[1])
times = st.one_of(st.integers(0, 12).map(lambda n: n / 4), st.floats(0, 3))
nics = st.lists(st.sampled_from([10.0, 20.0, 40.0, 17.3]), min_size=NUM_MACHINES, max_size=NUM_MACHINES)


@st.composite
def serialized_flows(draw) -> list[tuple[float, FlowRequested]]:
    num_flows = draw(st.integers(1, 14))
    return sorted((draw(times), flow(number, *draw(routes), draw(st.integers(1, 60)))) for number in range(num_flows))


@SETTINGS
@given(nics, serialized_flows())
def test_as_an_independent_simulation_has_it(nic, flows):
    wire = Wire(Network(nic, [0.0] * NUM_MACHINES))
    ends_s = wire.run(flows)
    assert ends_s == exactly(simulated(nic, flows))
    # Every byte arrives: the rates over time, which change at starts and ends only.
    cuts = sorted({at_s for at_s, _ in flows} | set(ends_s.values()))
    again = Wire(Network(nic, [0.0] * NUM_MACHINES))
    again.run(flows, watch_s=tuple((a + b) / 2 for a, b in pairwise(cuts)))
    at = dict(again.rates)
    sent = dict.fromkeys(ends_s, 0.0)
    for a, b in pairwise(cuts):
        for number, rate in at[(a + b) / 2].items():
            sent[number] += rate * (b - a)
    assert sent == pytest.approx({event.request_id: event.num_bytes for _, event in flows}, abs=1e-6)


def simulated(nic: list[float], flows: list[tuple[float, FlowRequested]]) -> dict[int, float]:
    """From start to start and end to end, with all flows at once: no neighbourhoods, no formula for what is alone."""
    coming = sorted(flows)
    left: dict[int, float] = {}
    route: dict[int, tuple[str, str]] = {}
    ends_s, now_s = {}, 0.0
    while coming or left:
        rates = filled(nic, {number: route[number] for number in left})
        next_s = min([now_s + left[number] / rates[number] for number in left] + [at_s for at_s, _ in coming[:1]])
        for number in list(left):
            left[number] -= rates[number] * (next_s - now_s)
            if left[number] <= 1e-11 * rates[number]:
                del left[number]
                ends_s[number] = next_s
        now_s = next_s
        while coming and coming[0][0] <= now_s:
            _, event = coming.pop(0)
            left[event.request_id] = float(event.num_bytes)
            route[event.request_id] = (f"out {event.source}", f"in {event.destination}")
    return ends_s


def filled(nic: list[float], routes: dict[int, tuple[str, str]], demands: dict[int, float] | None = None) -> dict[int, float]:
    """Max-min rates the long way: the narrowest link of those that are left fixes its flows, one link after the other."""
    free = {f"{way} {machine}": speed for machine, speed in enumerate(nic) for way in ("out", "in")}
    rates: dict[int, float] = {}
    routes = dict(routes)
    for number, demand in (demands or {}).items():
        if demand < inf:  # a link of its own, as narrow
            free[f"demand {number}"] = demand
            routes[number] = (*routes[number], f"demand {number}")
    while len(rates) < len(routes):
        share = {
            link: free[link] / len(users)
            for link in free
            if (users := [number for number in routes if number not in rates and link in routes[number]])
        }
        narrowest = min(share, key=share.get)
        for number in [number for number in routes if number not in rates and narrowest in routes[number]]:
            rates[number] = share[narrowest]
            for link in routes[number]:
                free[link] = max(0.0, free[link] - rates[number])
    return rates


@st.composite
def produced_flows(draw) -> list[tuple[float, FlowRequested]]:
    flows = []
    for number in range(draw(st.integers(1, 6))):
        from_s, takes_s = draw(st.integers(0, 8)) / 4, draw(st.sampled_from([0.0, 0.5, 1.0, 2.5]))
        start_s = from_s + draw(st.sampled_from([0.0, 0.25, 1.0, 3.0]))
        num_bytes, num_pieces = draw(st.integers(1, 60)), draw(st.sampled_from([1, 4, 80]))
        flows.append((start_s, produced(number, *draw(routes), num_bytes, from_s, from_s + takes_s, num_pieces)))
    return sorted(flows)


@SETTINGS
@given(nics, produced_flows())
def test_what_is_produced_while_it_is_sent_goes_as_in_small_steps(nic, flows):
    wire = Wire(Network(nic, [0.0] * NUM_MACHINES))
    ends_s = wire.run(flows)
    assert ends_s == pytest.approx(in_small_steps(nic, flows, step_s=1 / 256), abs=5 / 256)


@SETTINGS
@given(nics, produced_flows(), st.lists(times, max_size=8))
def test_rates_are_fair_at_every_time(nic, flows, watch_s):
    wire = Wire(Network(nic, [0.0] * NUM_MACHINES))
    ends_s = wire.run(flows, watch_s=tuple(watch_s))
    by_number = {event.request_id: event for _, event in flows}
    capacity = dict(enumerate(nic * 2))
    for at_s, rates in wire.rates:
        running = [number for number, rate in rates.items() if rate]
        for number in running:
            assert at_s < ends_s[number]
        paths = [(by_number[number].source, NUM_MACHINES + by_number[number].destination) for number in running]
        # What it sends at its rate of production it has no use for more.
        speed = {number: production(by_number[number], at_s) for number in running}
        demands = [rates[number] if rates[number] == speed[number] else inf for number in running]
        assert_max_min_fair(paths, demands, capacity, [rates[number] for number in running])


@st.composite
def events_beside_production(draw) -> list[tuple[float, tuple]]:
    """Flows mostly slower than NICs of 400 bytes/s, of prompts of one batch too, whose bursts last some 10 ms; few are lost."""
    moments = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0])
    nudges = st.sampled_from([0.0, 0.001, 0.01, 0.04, 0.2])
    events = []
    for number in range(draw(st.integers(2, 7))):
        from_s = draw(moments)
        start_s = from_s + draw(nudges) + draw(st.sampled_from([0.0, 0.0, 0.5]))
        takes_s = draw(st.sampled_from([0.0, 0.5, 1.0, 1.5])) + draw(nudges)
        num_bytes, num_pieces = draw(st.sampled_from([1, 10, 40, 80, 300])), draw(st.sampled_from([1, 4, 80]))
        events.append((start_s, produced(number, *draw(routes), num_bytes, from_s, from_s + takes_s, num_pieces)))
    for _ in range(draw(st.sampled_from([0, 0, 1]))):
        lost = st.one_of(
            st.builds(Cancelled, st.integers(0, 9), st.just(1)), st.builds(MachineDied, machines, st.just("power"))
        )
        events.append((draw(moments) + draw(nudges), draw(lost)))
    return sorted(events, key=lambda event: event[0])


@settings(SETTINGS, max_examples=600)
@given(events_beside_production())
def test_what_is_forecast_is_what_happens_event_by_event(events):
    watch_s = [at_s + after_s for at_s, _ in events for after_s in (0.00049, 0.0051, 0.0293)]
    runs = []
    for is_forecast, notes_rates in ((True, True), (False, True), (True, False)):
        network = Network([400.0, 400.0, 200.0, 400.0, 200.0], [0.0] * NUM_MACHINES)
        if not is_forecast:
            network._forecasts.add = lambda asked: None
        wire = Wire(network, notes_rates)
        ends_s = wire.run(events, watch_s=tuple(watch_s))
        runs.append((without_lost(ends_s, events), {at_s: rates for at_s, rates in wire.rates if at_s in watch_s}))
    (ends_s, rates), (expected_ends_s, expected_rates), (unwatched_ends_s, _) = runs
    assert ends_s == exactly(expected_ends_s)
    assert unwatched_ends_s == exactly(expected_ends_s)
    for at_s in watch_s:
        assert rates[at_s] == pytest.approx(expected_rates[at_s], rel=1e-6)


def without_lost(ends_s: dict[int, float], events: list[tuple[float, tuple]]) -> dict[int, float]:
    """The ends of those that were not cancelled before, nor was one of their machines dead: these may be told or not."""
    flows = {event.request_id: (at_s, event) for at_s, event in events if type(event) is FlowRequested}
    kept = dict(ends_s)
    for lost_s, event in events:
        for number, (start_s, flow) in flows.items():
            is_meant = event == Cancelled(number, 1) or (
                type(event) is MachineDied and event.machine in (flow.source, flow.destination)
            )
            if is_meant and start_s <= lost_s < kept.get(number, -inf):
                del kept[number]
    return kept


def production(event: FlowRequested, at_s: float) -> float:
    if at_s >= event.produced_until_s:
        return inf
    return event.num_bytes / (event.produced_until_s - event.produced_from_s)


def in_small_steps(nic: list[float], flows: list[tuple[float, FlowRequested]], step_s: float) -> dict[int, float]:
    """In each step, each flow has what is produced and not sent, as far as its share goes."""
    sent = dict.fromkeys((event.request_id for _, event in flows), 0.0)
    ends_s: dict[int, float] = {}
    num_steps = 0
    while len(ends_s) < len(flows):
        now_s = num_steps * step_s
        num_steps += 1
        demands, route = {}, {}
        for start_s, event in flows:
            number = event.request_id
            if number in ends_s or start_s > now_s:
                continue
            there = available(event, now_s + step_s / 2)
            demands[number] = (there - sent[number]) / step_s
            route[number] = (f"out {event.source}", f"in {event.destination}")
            if demands[number] <= 0:
                del demands[number], route[number]
        for number, rate in filled(nic, route, demands).items():
            sent[number] += rate * step_s
        for _, event in flows:
            if event.request_id not in ends_s and sent[event.request_id] >= event.num_bytes * (1 - 1e-12):
                ends_s[event.request_id] = now_s + step_s
    return ends_s


def available(event: FlowRequested, now_s: float) -> float:
    if now_s >= event.produced_until_s:
        return event.num_bytes
    takes_s = event.produced_until_s - event.produced_from_s
    first_s = event.produced_from_s + takes_s / event.num_pieces
    return max(0.0, event.num_bytes * (now_s - first_s) / takes_s)
