"""The scheduler, message by message: lists of events in, lists of actions out."""

import pytest

from emu.core.facts import PoolChanged, RequestEnded, RequestPlaced, RequestRequeued, StaleDropped
from emu.core.messages import (
    NETWORK,
    Assigned,
    Cancelled,
    KVTransferFailed,
    KVTransferred,
    MachineDied,
    PrefillDone,
    RequestArrived,
    RequestEvicted,
    RequestFinished,
    RequestRejected,
    RunEnded,
    RunStarted,
    Send,
)
from emu.core.pools import MachineLoad, Role
from emu.core.request import IllegalMove
from emu.core.scheduler import Scheduler

P0, P1, D0, D1 = range(4)


class Scripted:
    """Places as told, in order."""

    def __init__(self, *pairs):
        self.pairs = list(pairs)

    def place(self, request, pools):
        prefill_on, decode_on = self.pairs.pop(0)
        return pools.machines[prefill_on], pools.machines[decode_on]


def scheduler_of(*pairs, roles=(Role.PREFILL, Role.PREFILL, Role.DECODE, Role.DECODE)):
    return Scheduler([MachineLoad(index, role, 1000) for index, role in enumerate(roles)], Scripted(*pairs))


def handle(scheduler, *events):
    """The actions on all events, a second apart."""
    return [action for at_s, event in enumerate(events) for action in scheduler.handle(event, float(at_s))]


def arrived(request_id, prompt_tokens=100):
    return RequestArrived(request_id, 0.0, prompt_tokens, 0)


def assert_idle(scheduler):
    for machine in scheduler.pools.machines:
        loads = (machine.num_prefills, machine.num_decodes, machine.pending_prompt_tokens, machine.kv_tokens)
        assert (*loads, machine.pending_tokens, machine.num_requests) == (0,) * 6, f"machine {machine.index}"


def test_every_machine_opens_in_its_home_pool():
    scheduler = scheduler_of(roles=(Role.PREFILL, Role.DECODE, Role.MIXED))
    assert handle(scheduler, RunStarted()) == [PoolChanged(0, "prompt"), PoolChanged(1, "token"), PoolChanged(2, "mixed")]


def test_an_arrival_is_placed_and_assigned():
    assert handle(scheduler_of((P1, D0)), arrived(7)) == [
        RequestPlaced(7, 1, P1, D0),
        Send(P1, Assigned(7, 1, 0.0, 100, 0, D0)),
    ]


def test_loads_follow_a_request_from_prompt_to_end():
    scheduler = scheduler_of((P0, D1))
    handle(scheduler, arrived(0))
    p0, d1 = scheduler.pools.machines[P0], scheduler.pools.machines[D1]
    assert (p0.num_prefills, p0.pending_prompt_tokens, d1.num_decodes, d1.kv_tokens) == (1, 100, 1, 101)
    assert (p0.pending_tokens, d1.pending_tokens) == (100, 1)
    assert handle(scheduler, PrefillDone(0, 1)) == []
    assert (p0.num_prefills, p0.pending_prompt_tokens, d1.num_decodes, d1.kv_tokens) == (0, 0, 1, 101)
    assert handle(scheduler, KVTransferred(0, 1), RequestFinished(0, 1)) == [RequestEnded(0, 1, "")]
    assert scheduler.requests == {}
    assert_idle(scheduler)


def test_a_one_token_answer_ends_from_its_prefill():
    scheduler = scheduler_of((P0, D0))
    assert handle(scheduler, arrived(0), RequestFinished(0, 1))[-1] == RequestEnded(0, 1, "")
    assert_idle(scheduler)


def test_word_of_the_transfer_may_overtake_word_of_the_prefill():
    scheduler = scheduler_of((P0, D0))
    actions = handle(scheduler, arrived(0), KVTransferred(0, 1), PrefillDone(0, 1), RequestFinished(0, 1))
    assert actions[2:] == [RequestEnded(0, 1, "")]
    assert_idle(scheduler)


@pytest.mark.parametrize("message", [PrefillDone(0, 2), KVTransferred(9, 1), RequestFinished(0, 0), KVTransferFailed(0, 2, "")])
def test_word_of_another_attempt_is_dropped(message):
    scheduler = scheduler_of((P0, D0))
    actions = handle(scheduler, arrived(0), message)
    assert actions[2:] == [StaleDropped(message.request_id, message.attempt, type(message).__name__)]
    assert list(scheduler.requests) == [0]


def test_a_move_that_is_not_in_the_table_tells_the_story():
    scheduler = scheduler_of((P0, D0))
    handle(scheduler, arrived(0), PrefillDone(0, 1), KVTransferred(0, 1))
    story = r"^request 0 attempt 1: QUEUED@0\.0+ -> PREFILLING@0\.0+ -> TRANSFERRING@1\.0+ -> DECODING@2\.0+ -> DECODING@9\.0+$"
    with pytest.raises(IllegalMove, match=story):
        scheduler.handle(KVTransferred(0, 1), 9.0)


def test_an_evicted_request_starts_again_with_its_tokens():
    scheduler = scheduler_of((P0, D0), (P1, D1))
    handle(scheduler, arrived(0), PrefillDone(0, 1), KVTransferred(0, 1))
    assert handle(scheduler, RequestEvicted(0, 1, 25)) == [
        RequestRequeued(0, 1, True, "no KV block was left for it"),
        Send(P0, Cancelled(0, 1)),
        Send(D0, Cancelled(0, 1)),
        RequestPlaced(0, 2, P1, D1),
        Send(P1, Assigned(0, 2, 0.0, 125, 25, D1)),
    ]
    assert handle(scheduler, PrefillDone(0, 2), KVTransferred(0, 2), RequestFinished(0, 2)) == [RequestEnded(0, 2, "")]
    assert_idle(scheduler)


def assigned_ids(actions):
    return [
        action.message.output_ids for action in actions if isinstance(action, Send) and isinstance(action.message, Assigned)
    ]


def test_what_a_machine_told_of_the_output_goes_with_the_next_start():
    scheduler = scheduler_of(*[(P0, D0)] * 5)
    assert assigned_ids(handle(scheduler, arrived(0))) == [b""]
    told = handle(scheduler, PrefillDone(0, 1, b"one."), KVTransferred(0, 1), RequestEvicted(0, 1, 2, b"one.two."))
    assert assigned_ids(told) == [b"one.two."]
    assert assigned_ids(handle(scheduler, KVTransferFailed(0, 2, "before its first token"))) == [b"one.two."]
    told = handle(scheduler, PrefillDone(0, 3, b"one.two.tri."), KVTransferFailed(0, 3, "after it"))
    assert assigned_ids(told) == [b"one.two.tri."]


def test_a_start_from_scratch_and_a_machine_that_computes_no_tokens_forget_them():
    scheduler = scheduler_of((P0, D0), (P0, D1), (P1, D1))
    handle(scheduler, arrived(0), PrefillDone(0, 1, b"one."), KVTransferred(0, 1))
    assert assigned_ids(handle(scheduler, RequestEvicted(0, 1, 7))) == [b""]
    handle(scheduler, PrefillDone(0, 2, b"one."))
    assert assigned_ids(handle(scheduler, MachineDied(P0, "power"))) == [b""]


def test_a_machine_for_both_phases_is_told_of_an_eviction_once():
    scheduler = scheduler_of((0, 0), (0, 0), roles=(Role.MIXED,))
    handle(scheduler, arrived(0), PrefillDone(0, 1))
    assert handle(scheduler, RequestEvicted(0, 1, 25))[1:] == [
        Send(0, Cancelled(0, 1)),
        RequestPlaced(0, 2, 0, 0),
        Send(0, Assigned(0, 2, 0.0, 125, 25, 0)),
    ]


def test_a_rejected_request_fails_with_the_cause():
    scheduler = scheduler_of((P0, D0))
    assert handle(scheduler, arrived(0), RequestRejected(0, 1, "too long"))[2:] == [
        Send(P0, Cancelled(0, 1)),
        Send(D0, Cancelled(0, 1)),
        RequestEnded(0, 1, "too long"),
    ]
    assert_idle(scheduler)


# --- failed transfers -------------------------------------------------------------------------------------------------


def test_a_failed_transfer_restarts_its_request_with_its_first_token():
    scheduler = scheduler_of((P0, D0), (P0, D0))  # the same machines, where the placement says so
    handle(scheduler, arrived(0), PrefillDone(0, 1))
    assert handle(scheduler, KVTransferFailed(0, 1, "tried 3 times")) == [
        RequestRequeued(0, 1, False, "its KV cache did not get from machine 0 to machine 2: tried 3 times"),
        Send(P0, Cancelled(0, 1)),
        Send(D0, Cancelled(0, 1)),
        RequestPlaced(0, 2, P0, D0),
        Send(P0, Assigned(0, 2, 0.0, 101, 1, D0)),
    ]
    assert handle(scheduler, PrefillDone(0, 2), KVTransferred(0, 2), RequestFinished(0, 2)) == [RequestEnded(0, 2, "")]
    assert_idle(scheduler)


def test_of_layers_lost_before_the_prefill_was_over_no_token_is_known():
    scheduler = scheduler_of((P0, D0), (P1, D1))
    actions = handle(scheduler, arrived(0), KVTransferFailed(0, 1, "broken"), PrefillDone(0, 1))
    assert actions[-2:] == [Send(P1, Assigned(0, 2, 0.0, 100, 0, D1)), StaleDropped(0, 1, "PrefillDone")]


def test_tokens_of_attempts_before_a_failed_transfer_are_kept():
    scheduler = scheduler_of((P0, D0), (P0, D0), (P0, D0))
    handle(scheduler, arrived(0), PrefillDone(0, 1), KVTransferred(0, 1), RequestEvicted(0, 1, 25), PrefillDone(0, 2))
    assert handle(scheduler, KVTransferFailed(0, 2, "broken"))[-1] == Send(P0, Assigned(0, 3, 0.0, 126, 26, D0))


@pytest.mark.parametrize("limit", [1, 3])
def test_a_request_fails_with_the_last_transfer_it_may_lose(limit):
    machines = [MachineLoad(index, role, 1000) for index, role in enumerate((Role.PREFILL, Role.DECODE))]
    scheduler = Scheduler(machines, Scripted(*[(0, 1)] * limit), max_transfer_failures=limit)
    handle(scheduler, arrived(0))
    cause = "its KV cache did not get from machine 0 to machine 1: broken"
    for attempt in range(1, limit):
        restarted = handle(scheduler, PrefillDone(0, attempt), KVTransferFailed(0, attempt, "broken"))
        assert restarted[0] == RequestRequeued(0, attempt, False, cause)
    assert handle(scheduler, PrefillDone(0, limit), KVTransferFailed(0, limit, "broken")) == [
        Send(0, Cancelled(0, limit)),
        Send(1, Cancelled(0, limit)),
        RequestEnded(0, limit, f"{cause} (failed transfer {limit} of at most {limit})"),
    ]
    assert_idle(scheduler)


# --- deaths -----------------------------------------------------------------------------------------------------------


def test_a_death_restarts_those_it_served_from_scratch():
    pairs = [(P0, D0), (P0, D0), (P1, D0), (P1, D1)]
    scheduler = scheduler_of(*pairs, (P1, D1), (P1, D1), (P1, D1))
    handle(scheduler, *map(arrived, range(4)))
    handle(scheduler, PrefillDone(1, 1), PrefillDone(2, 1), KVTransferred(2, 1))
    cause = "machine 2 died: power"
    assert handle(scheduler, MachineDied(D0, "power")) == [
        PoolChanged(D0, "dead"),
        Send(NETWORK, MachineDied(D0, "power")),
        *(
            action
            for request_id, prefill_on in ((0, P0), (1, P0), (2, P1))  # prefilling, handed over, decoding: all lost
            for action in (
                RequestRequeued(request_id, 1, False, cause),
                Send(prefill_on, Cancelled(request_id, 1)),
                RequestPlaced(request_id, 2, P1, D1),
                Send(P1, Assigned(request_id, 2, 0.0, 100, 0, D1)),
            )
        ),
    ]


def test_the_death_of_its_prompt_machine_is_nothing_to_a_request_that_decodes():
    scheduler = scheduler_of((P0, D0), (P0, D1), (P1, D1))
    handle(scheduler, arrived(0), arrived(1), PrefillDone(0, 1), KVTransferred(0, 1), PrefillDone(1, 1))
    assert handle(scheduler, MachineDied(P0, "power")) == [
        PoolChanged(P0, "dead"),
        Send(NETWORK, MachineDied(P0, "power")),
        RequestRequeued(1, 1, False, "machine 0 died: power"),  # its KV cache was held there
        Send(D1, Cancelled(1, 1)),
        RequestPlaced(1, 2, P1, D1),
        Send(P1, Assigned(1, 2, 0.0, 100, 0, D1)),
    ]


def test_a_machine_dies_once():
    scheduler = scheduler_of()
    once = [PoolChanged(D0, "dead"), Send(NETWORK, MachineDied(D0, "x"))]
    assert handle(scheduler, MachineDied(D0, "x"), MachineDied(D0, "y")) == once


def test_with_the_last_machine_every_request_fails():
    scheduler = scheduler_of((0, 0), roles=(Role.MIXED,))
    handle(scheduler, arrived(0))
    assert handle(scheduler, MachineDied(0, "power"), arrived(1)) == [
        PoolChanged(0, "dead"),
        Send(NETWORK, MachineDied(0, "power")),
        RequestRequeued(0, 1, False, "machine 0 died: power"),
        RequestEnded(0, 2, "no machine is left alive"),
        RequestEnded(1, 1, "no machine is left alive"),
    ]
    assert_idle(scheduler)


def test_what_is_unfinished_when_the_run_ends_fails_with_the_cause():
    scheduler = scheduler_of((P0, D0), (P1, D1))
    handle(scheduler, arrived(0), arrived(1), PrefillDone(1, 1))
    assert handle(scheduler, RunEnded("time is up")) == [
        Send(P0, Cancelled(0, 1)),
        Send(D0, Cancelled(0, 1)),
        RequestEnded(0, 1, "time is up"),
        Send(P1, Cancelled(1, 1)),
        Send(D1, Cancelled(1, 1)),
        RequestEnded(1, 1, "time is up"),
    ]
    assert_idle(scheduler)


# --- the mixed pool ---------------------------------------------------------------------------------------------------


def test_a_token_machine_that_prefills_is_mixed_until_its_last_prompt_is_done():
    scheduler = scheduler_of((D0, D0), (D0, D1))
    actions = handle(scheduler, arrived(0), arrived(1), PrefillDone(1, 1), PrefillDone(0, 1))
    assert [action for action in actions if isinstance(action, PoolChanged)] == [
        PoolChanged(D0, "mixed"),
        PoolChanged(D0, "token"),
    ]
    assert actions[-1] == PoolChanged(D0, "token")


def test_a_prompt_machine_that_decodes_is_mixed_until_its_last_decode_is_done():
    scheduler = scheduler_of((P0, P0))
    assert handle(scheduler, arrived(0), PrefillDone(0, 1), RequestFinished(0, 1)) == [
        PoolChanged(P0, "mixed"),
        RequestPlaced(0, 1, P0, P0),
        Send(P0, Assigned(0, 1, 0.0, 100, 0, P0)),
        PoolChanged(P0, "prompt"),
        RequestEnded(0, 1, ""),
    ]


def test_a_machine_bought_for_both_phases_stays_mixed():
    scheduler = scheduler_of((0, 0), roles=(Role.MIXED,))
    actions = handle(scheduler, arrived(0), PrefillDone(0, 1), RequestFinished(0, 1))
    assert not [action for action in actions if isinstance(action, PoolChanged)]
