"""The figures of the hand-over ledger, by hand."""

import numpy as np
import pytest
from facts import HARDWARE, MODEL, cluster_of, recorded

from emu.core.facts import KVHandedOver, PayloadMoved
from emu.results.handover import handover_figures
from emu.results.ledger import SPANS, Ledger

NOTHING = dict.fromkeys(SPANS, 0.0)
# Requests 1 to 4: serialized, layer by layer, lost after its first token, and one in the warm-up.
ROWS = [
    NOTHING | dict(hold=0.005, queue=0.005, wire=0.01, wait=0.01, step=0.03),
    NOTHING | dict(wire=0.02, verify=0.01, activate=0.04, step=0.03),
    NOTHING | dict(recovery=0.08),
    NOTHING | dict(step=9.0),
]


@pytest.fixture
def figures():
    facts = [(0, KVHandedOver(1, 1, 0, 1, 100, 0.0, 0.0)), (0, KVHandedOver(2, 1, 0, 1, 500, 0.0, 0.0))]
    facts += [(0, PayloadMoved(2, 1, 99, 1, 0.0, 0.0, 0.0, 0.0, 0.125, 0.0))]
    columns = recorded([(0, 8, 2)] * 5, facts).columns()
    ledger = Ledger(
        request_id=np.array([1, 2, 3, 4]),
        is_layerwise=np.array([False, True, False, False]),
        transfer=np.array([0, 1, -1, -1]),
        payload=np.array([-1, 0, -1, -1]),
        spans_s=np.array([list(row.values()) for row in ROWS]).T,
    )
    cluster = cluster_of(("p0", "d0", "d1"))
    return lambda measured: handover_figures(ledger, np.array(measured), columns, cluster)


def test_all_requests_together(figures):
    result = figures([True] * 4 + [False])
    assert result["requests"] == 3
    assert result["gap_s"] == pytest.approx(dict(mean=0.08, p50=0.08, p99=0.0996))
    assert list(result["span_s"]) == list(result["share"]) == list(SPANS)
    assert result["span_s"]["wire"] == pytest.approx(dict(mean=0.01, p50=0.01, p99=0.0198))
    assert result["share"]["step"] == pytest.approx(0.25)
    assert sum(result["share"].values()) == pytest.approx(1)


def test_plans_apart(figures):
    plan = figures([True] * 4 + [False])["plan"]
    assert {name: of["requests"] for name, of in plan.items()} == {"serialized": 1, "layerwise": 1}
    assert plan["serialized"]["gap_s"]["mean"] == pytest.approx(0.06)
    assert plan["layerwise"]["span_s"]["verify"]["p99"] == pytest.approx(0.01)
    assert list(figures([False, True, False, False, False])["plan"]) == ["serialized"]


def test_real_wire_time_beside_the_models(figures):
    result = figures([True] * 4 + [False])
    link_s = 500 * MODEL.kv_bytes_per_token / HARDWARE.nic_bytes_per_s + HARDWARE.link_latency_s
    expected = dict(
        count=1, wire_s=dict(mean=0.125, p50=0.125, p99=0.125), link_s=dict.fromkeys(("mean", "p50", "p99"), link_s)
    )
    assert result["payload"] == result["plan"]["layerwise"]["payload"] == expected
    assert "payload" not in result["plan"]["serialized"]


def test_nothing_to_count(figures):
    assert figures([True] + [False] * 4) == {"requests": 0}
