"""Load that is told every so often: what a placement sees of work that has ended."""

from emu.core.facts import RequestPlaced
from emu.core.messages import KVTransferred, PrefillDone, RequestArrived, RequestEvicted, RequestFinished, RunEnded
from emu.core.placement.token_jsq import TokenJsq
from emu.core.pools import MachineLoad, Role
from emu.core.repurposing import NEVER
from emu.core.scheduler import Scheduler
from tests.clusters import make_cluster, simulate

MACHINES = [(0, Role.PREFILL), (1, Role.PREFILL), (2, Role.DECODE), (3, Role.DECODE)]


def placed(report_period_s, *events):
    """Where each arrival is placed; events are (time, event)."""
    loads = [MachineLoad(index, role, 1000) for index, role in MACHINES]
    scheduler = Scheduler(loads, TokenJsq(), NEVER, report_period_s)
    actions = [action for now_s, event in events for action in scheduler.handle(event, now_s)]
    return [(action.prefill_on, action.decode_on) for action in actions if isinstance(action, RequestPlaced)], scheduler


def arrived(request_id, prompt_tokens):
    return RequestArrived(request_id, 0.0, prompt_tokens, 0)


def test_an_end_counts_from_the_next_report_on():
    """Machine 0 of 4 reports at 4, 8, ...; machine 1 at 1, 5, ..."""
    story = [(0.5, arrived(0, 100)), (0.6, arrived(1, 50)), (2.0, PrefillDone(0, 1)), (3.9, arrived(2, 10))]
    assert placed(4.0, *story)[0] == [(0, 2), (1, 3), (1, 2)]
    story[-1] = (4.0, arrived(2, 10))
    assert placed(4.0, *story)[0] == [(0, 2), (1, 3), (0, 2)]
    assert placed(0.0, *story)[0] == [(0, 2), (1, 3), (0, 2)]


def test_machines_report_one_after_the_other():
    story = [(0.1, arrived(0, 100)), (0.2, arrived(1, 120)), (4.5, PrefillDone(1, 1)), (4.9, arrived(2, 10))]
    assert placed(4.0, *story)[0] == [(0, 2), (1, 3), (0, 2)]
    story[-1] = (5.0, arrived(2, 10))
    assert placed(4.0, *story)[0] == [(0, 2), (1, 3), (1, 2)]


def test_what_an_attempt_took_is_given_back_though_the_next_has_begun_by_then():
    evicted = RequestEvicted(0, 1, num_generated=7)  # the next attempt prefills 107 tokens
    story = [(0.1, arrived(0, 100)), (1.0, PrefillDone(0, 1)), (1.5, KVTransferred(0, 1)), (2.0, evicted)]
    scheduler = placed(4.0, *story, (12.0, RunEnded("over")), (20.0, RunEnded("over")))[1]
    assert [(load.num_requests, load.pending_tokens, load.kv_tokens) for load in scheduler.pools.machines] == [(0, 0, 0)] * 4


def test_what_is_assigned_counts_at_once():
    story = [(0.1, arrived(request_id, 100)) for request_id in range(4)]
    assert placed(1000.0, *story)[0] == [(0, 2), (1, 3), (0, 2), (1, 3)]


def test_in_the_end_everything_has_been_reported():
    story = [
        (0.0, arrived(0, 100)),
        (1.0, PrefillDone(0, 1)),
        (1.5, KVTransferred(0, 1)),
        (2.0, RequestFinished(0, 1)),
        (12.0, RunEnded("over")),
    ]
    scheduler = placed(4.0, *story)[1]
    assert [(load.num_requests, load.pending_tokens, load.kv_tokens) for load in scheduler.pools.machines] == [(0, 0, 0)] * 4


def test_a_stale_view_changes_where_requests_go():
    requests = [(0.05 * i, 40 + 37 * i % 200, 3 + i % 9) for i in range(40)]
    runs = [simulate(make_cluster("p0 p1 p2 d0 d1", report_period_s=period_s), requests) for period_s in (0.0, 0.5, 5.0)]
    placements = [tuple(run.columns.requests.prefill_on.tolist()) for run in runs]
    assert len({*placements}) == 3
