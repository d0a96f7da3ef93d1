"""Each invariant on facts that break it; that they hold is checked wherever a cluster is run."""

import numpy as np
import pytest
from facts import cluster_of, decode, prefill, recorded

from emu.core.facts import KVHandedOver, PayloadMoved, PoolChanged, RequestEnded, RequestPlaced
from emu.results.invariants import Ended, violations
from emu.results.ledger import handover_ledger

REQUESTS = [(0, 8, 3), (1, 8, 1)]


def facts(**changes):
    """Two requests that do everything right, except for the named facts."""
    whole = dict(
        place_0=(0, RequestPlaced(0, 1, 0, 1)),
        place_1=(1, RequestPlaced(1, 1, 0, 1)),
        prefill=prefill(0, 1, 2, (0, 1, 8, 0), (1, 1, 8, 0), finished=(1,)),
        end_1=(2, RequestEnded(1, 1, "")),
        transfer=(4, KVHandedOver(0, 1, 0, 1, 8, 2, 3)),
        decode=decode(1, 4, [5, 6], (0, 1, 8, 1), finished=(0,)),
        end_0=(6, RequestEnded(0, 1, "")),
    )
    return [fact for fact in (whole | changes).values() if fact is not None]


def ended(columns, **known):
    return Ended(columns, handover_ledger(columns, cluster_of(("p0", "d0", "d1"))), **known)


def broken(interrupted=False, may_lose_facts=False, **changes):
    columns = recorded(REQUESTS, facts(**changes)).columns()
    return violations(ended(columns, interrupted=interrupted, may_lose_facts=may_lose_facts))


def test_all_hold():
    assert broken() == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (dict(end_1=None), "invariant 1: every request ends exactly once: not so for 1, the first request 1"),
        (
            dict(again=(7, RequestEnded(0, 1, "x"))),
            "invariant 1: every request ends exactly once: not so for 1, the first request 0",
        ),
        (
            dict(decode=decode(1, 4, [5], (0, 1, 8, 1), finished=(0,))),
            "invariant 2: tokens out = tokens asked: not so for 1, the first request 0",
        ),
        (
            dict(decode=decode(1, 4, [4.5, 5, 6], (0, 1, 8, 1), finished=(0,))),
            "invariant 2: tokens out = tokens asked: not so for 1, the first request 0",
        ),
        (
            dict(decode=decode(1, 4, [4.5, 5, 6], (0, 1, 8, 0), finished=(0,))),
            "invariant 3: no token comes twice in one attempt: not so for 1, the first request 0",
        ),
        (
            dict(prefill=prefill(0, 0.5, 2, (0, 1, 8, 0), (1, 1, 8, 0), finished=(1,))),
            "invariant 4: the times of a request are in order: not so for 1, the first request 1",
        ),
        (
            dict(end_0=(5.5, RequestEnded(0, 1, ""))),
            "invariant 4: the times of a request are in order: not so for 1, the first request 0",
        ),
        (
            dict(again=prefill(0, 1.5, 2.5)),
            "invariant 5: steps of a machine take time and do not overlap: not so for 1, the first machine 0",
        ),
        (
            dict(again=prefill(2, 1.5, 1.5)),
            "invariant 5: steps of a machine take time and do not overlap: not so for 1, the first machine 2",
        ),
        (
            dict(decode=decode(1, 4, [5, 6], (0, 1, 8, 1), finished=(0,), num_decodes=2)),
            "invariant 6: every decode of a pass gets one token: not so for 1, the first machine 1",
        ),
        (
            dict(transfer=(4, KVHandedOver(0, 1, 0, 1, 8, 3, 2))),
            "invariant 7: a transfer is offered, pulled, received, once: not so for 1, the first request 0",
        ),
        (
            dict(transfer=(4, KVHandedOver(0, 1, 1, 1, 8, 2, 3))),
            "invariant 7: a transfer is offered, pulled, received, once: not so for 1, the first request 0",
        ),
        (
            dict(again=(4, KVHandedOver(0, 1, 0, 1, 8, 2, 3))),
            "invariant 7: a transfer is offered, pulled, received, once: not so for 1, the first request 0",
        ),
        (
            dict(transfer=(4.5, KVHandedOver(0, 1, 0, 1, 8, 2, 3))),
            "invariant 8: no decode starts before its KV cache is there: not so for 1, the first request 0",
        ),
        (
            dict(transfer=(1.9, KVHandedOver(0, 1, 0, 1, 8, 1.5, 1.6))),
            "invariant 8: no decode starts before its KV cache is there: not so for 1, the first request 0",
        ),
        (
            dict(transfer=None),
            "invariant 8: no decode starts before its KV cache is there: not so for 1, the first request 0",
        ),
        (
            dict(payload=(4, PayloadMoved(0, 1, 512, 1, 3, 3.5, 3.6, 4.1, 0.5, 0.5))),  # received before it was verified
            "invariant 9: the spans of a hand-over add up to its gap: not so for 1, the first request 0",
        ),
    ],
)
def test_one_broken(changes, line):
    assert line in broken(**changes)
    assert len({broken_line[:11] for broken_line in broken(**changes)} - {line[:11]}) <= 1


def test_an_interrupted_run_need_not_end_everything():
    assert broken(interrupted=True, end_0=None, decode=None, transfer=None) == []
    assert broken(interrupted=True, again=(7, RequestEnded(0, 1, "x"))) != []


def test_a_machine_that_died_may_take_its_last_facts_along():
    lost = dict(decode=decode(1, 4, [5], (0, 1, 8, 1), finished=(0,)), transfer=None)
    assert len(broken(may_lose_facts=True, **lost)) == 1
    lost["died"] = (7, PoolChanged(1, "dead"))
    assert broken(may_lose_facts=True, **lost) == []
    assert len(broken(**lost)) == 2


def test_an_attempt_that_starts_again_may_repeat_tokens():
    columns = recorded(
        [(0, 8, 2)],
        [
            (0, RequestPlaced(0, 1, 0, 1)),
            prefill(0, 0, 1, (0, 1, 8, 0)),
            (2, RequestPlaced(0, 2, 2, 2)),
            prefill(2, 2, 3, (0, 2, 8, 0)),
            decode(2, 3, [4], (0, 2, 8, 1), finished=(0,)),
            (4, RequestEnded(0, 2, "")),
        ],
    ).columns()
    assert violations(ended(columns)) == []
    columns.requests.attempts[0] = 1
    assert violations(ended(columns)) == ["invariant 3: no token comes twice in one attempt: not so for 1, the first request 0"]
    assert np.array_equal(columns.requests.num_recomputed, [1])
