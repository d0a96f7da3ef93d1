"""The ledger of hand-overs against hand-computed spans (the figures of `clusters`), and its formula against the network's."""

from dataclasses import replace

import numpy as np
import pytest
from facts import cluster_of, decode, prefill, recorded
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.core.facts import KVHandedOver, PayloadMoved, RequestEnded, RequestPlaced
from emu.core.messages import FlowRequested
from emu.core.network import Network
from emu.results.ledger import SPANS, Ledger, end_alone_s, handover_ledger
from tests.clusters import exactly, make_cluster, simulate


def ledger_of(cluster, requests, **options) -> Ledger:
    return handover_ledger(simulate(cluster, requests, **options).columns, cluster)


def spans(ledger, row=0) -> dict[str, float]:
    """The spans that took any time."""
    return {name: float(span_s[row]) for name, span_s in zip(SPANS, ledger.spans_s, strict=True) if span_s[row] > 1e-12}


def test_serialized():
    # Prefill 0.005 to 0.105, offered at 0.110; asked for at 0.115 and there after 0.102, at 0.217; an idle machine.
    ledger = ledger_of(make_cluster("p0 d0"), [(0.0, 100, 3)])
    assert spans(ledger) == exactly(dict(hold=0.005, queue=0.005, wire=0.102, step=0.03))
    assert not ledger.is_layerwise[0] and ledger.transfer[0] == 0 and ledger.payload[0] == -1


def test_layer_by_layer():
    # Offered while it is prefilled; the last fifth leaves from 0.105 to 0.125 and is there at 0.127.
    ledger = ledger_of(make_cluster("p0 d0", layerwise_min_tokens=1), [(0.0, 100, 2)])
    assert spans(ledger) == exactly(dict(wire=0.022, step=0.03))
    assert ledger.is_layerwise[0]


def test_layer_by_layer_asked_for_late():
    # Prefill 0.005 to 0.013, asked for at 0.015: all is there by then. 0.002 of the request show, and all of the wire.
    ledger = ledger_of(make_cluster("p0 d0", layerwise_min_tokens=1), [(0.0, 8, 2)])
    assert spans(ledger) == exactly(dict(queue=0.002, wire=0.010, step=0.03))
    assert ledger.is_layerwise[0]


def test_layers_that_leave_together():
    cluster = replace(make_cluster("p0 d0", layerwise_min_tokens=1), layers_per_piece=5)
    assert spans(ledger_of(cluster, [(0.0, 100, 2)])) == exactly(dict(wire=0.102, step=0.03))


def test_flows_that_share_a_link():
    # Two into d0 from 0.115 to 0.315, twice as long as alone; both are there at 0.317, the second waits for a step.
    ledger = ledger_of(make_cluster("p0 p1 d0", contention=True), [(0.0, 100, 3), (0.0, 100, 3)])
    assert spans(ledger, 0) == exactly(dict(hold=0.005, queue=0.105, wire=0.102, step=0.03))
    assert spans(ledger, 1) == exactly(dict(hold=0.005, queue=0.105, wire=0.102, wait=0.03, step=0.03))


def test_layer_by_layer_beside_another():
    # See test_contention: request 0 is through at 0.170 instead of 0.125, request 1, serialized, at 0.150 instead of 0.105.
    cluster = make_cluster("p0 p1 d0", contention=True, layerwise_min_tokens=90)
    ledger = ledger_of(cluster, [(0.0, 100, 2), (0.0, 45, 2)])
    assert ledger.is_layerwise.tolist() == [True, False]
    # d0 decodes request 1 from 0.152 to 0.182, when request 0, there at 0.172, joins.
    assert spans(ledger, 0) == exactly(dict(queue=0.045, wire=0.022, wait=0.010, step=0.03))
    assert spans(ledger, 1) == exactly(dict(hold=0.005, queue=0.050, wire=0.047, step=0.03))


def test_waiting_for_blocks():
    # See test_memory_pressure: offered at 0.210, its blocks are free at 0.487.
    ledger = ledger_of(make_cluster("p0 d0", d0=10), [(0.0, 100, 10), (0.0, 100, 3)])
    assert spans(ledger, 1) == exactly(dict(hold=0.005, reserve=0.277, queue=0.005, wire=0.102, step=0.03))


@pytest.mark.parametrize(("machines", "dies"), [("p0 p1 d0", "p0"), ("p0 d0 d1", "d0")])
def test_a_death_in_transfer(machines, dies):
    # First token at 0.105; the next attempt prefills from 0.160 to 0.260.
    ledger = ledger_of(make_cluster(machines), [(0.0, 100, 3)], deaths={dies: 0.15})
    assert spans(ledger) == exactly(dict(recovery=0.155, hold=0.005, queue=0.005, wire=0.102, step=0.03))


def test_a_death_after_the_second_token_is_none_of_it():
    # See test_deaths: d0 dies with three tokens out, and all of them come again.
    cluster = make_cluster("p0 d0 d1")
    ledger = ledger_of(cluster, [(0.0, 100, 5)], deaths={"d0": 0.3})
    assert spans(ledger) == exactly(dict(hold=0.005, queue=0.005, wire=0.102, step=0.03))
    assert ledger.transfer.tolist() == [0]


def test_an_eviction_of_what_was_handed_over():
    # Request 0 is at d0 at 0.033 and needs a fourth block for its fifth step, at 0.153. Request 1, there since 0.133 with the
    # other three, is to join then: it is evicted. Assigned again at 0.163 with its first token, of 0.113, it is prefilled to
    # 0.172, which writes its second. Its next hand-over comes after that.
    cluster = make_cluster("p0 p1 d0", block_tokens=4, d0=6)
    run = simulate(cluster, [(0.0, 8, 8), (0.1, 8, 3)])
    ledger = handover_ledger(run.columns, cluster)
    assert run.columns.requests.evictions.tolist() == [0, 1]
    assert run.columns.transfers.attempt[run.columns.transfers.request_id == 1].tolist() == [1, 2]
    assert spans(ledger, 1) == exactly(dict(recovery=0.059))
    assert ledger.transfer[1] == -1


def test_steps_begin_when_the_table_says():
    steps = simulate(make_cluster("p0 d0 m0"), [(0.0, 100, 9), (0.05, 80, 9), (0.1, 8, 2), (2.0, 8, 4)]).columns.steps
    chosen = np.arange(len(steps))[::-1]
    np.testing.assert_array_equal(steps.starts_of(chosen), steps.start_s[chosen])


def test_without_hand_overs():
    assert len(ledger_of(make_cluster("m0 m1"), [(0.0, 100, 3)])) == 0
    assert len(ledger_of(make_cluster("p0 d0"), [(0.0, 100, 1)])) == 0
    assert len(handover_ledger(recorded([(0, 8, 2)], []).columns(), cluster_of(("p0", "d0", "d1")))) == 0


HANDED_OVER = (
    (0, RequestPlaced(0, 1, 0, 1)),
    prefill(0, 1, 2, (0, 1, 500, 0)),
    (4, KVHandedOver(0, 1, 0, 1, 500, 2.005, 2.005)),  # 500 tokens of 64 B at 1 MB/s after 1 ms: 0.033
    decode(1, 4, [5], (0, 1, 500, 1), finished=(0,)),
    (5, RequestEnded(0, 1, "")),
)


@pytest.mark.parametrize(
    ("modelled_s", "fetched_s", "verified_s", "expected"),
    [
        (4, 3, 3.5, dict(queue=1.962, wire=0.033)),  # in time
        (3, 3.25, 3.5, dict(queue=0.962, wire=0.283, verify=0.25, activate=0.5)),
        (3, 2.5, 3.5, dict(queue=0.962, wire=0.033, verify=0.5, activate=0.5)),
        (3, 2.5, 2.75, dict(queue=0.962, wire=0.033, activate=1.0)),
    ],
)
def test_real_bytes(modelled_s, fetched_s, verified_s, expected):
    payload = PayloadMoved(0, 1, 16000, 4, 2.01, modelled_s, fetched_s, verified_s, 0.125, 0.5)
    columns = recorded([(0, 500, 2)], [*HANDED_OVER, (4, payload)]).columns()
    ledger = handover_ledger(columns, cluster_of(("p0", "d0", "d1")))
    assert ledger.payload[0] == 0
    assert spans(ledger) == exactly(dict(hold=0.005, step=1.0) | expected)


def test_what_a_dead_machine_took_along_is_left_out():
    again = [(3, RequestPlaced(0, 2, 2, 1)), *HANDED_OVER[1:2]]  # of attempt 2 the prefill is missing
    again += [
        (4, KVHandedOver(0, 2, 2, 1, 500, 3, 3)),
        decode(1, 4, [5], (0, 2, 500, 1), finished=(0,)),
        (5, RequestEnded(0, 2, "")),
    ]
    columns = recorded([(0, 500, 2)], again).columns()
    assert columns.requests.second_token_s[0] == 5
    assert len(handover_ledger(columns, cluster_of(("p0", "d0", "d1")))) == 0


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    asked_s=st.floats(0, 4),
    from_s=st.floats(0, 4),
    produced_s=st.floats(0, 4),
    num_bytes=st.integers(1, 5),
    num=st.integers(1, 9),
)
def test_alone_is_what_the_network_says(asked_s, from_s, produced_s, num_bytes, num):
    produced = (from_s, from_s + produced_s, num)
    [completion] = Network([1.0, 2.0], [0.0, 0.0]).handle(FlowRequested(0, 1, 0, 1, num_bytes, *produced), asked_s)
    end_s = end_alone_s(np.array([asked_s]), np.array([num_bytes]), np.array([1.0]), *map(np.array, produced[:2]), num)
    assert end_s[0] == exactly(completion.at_s)
