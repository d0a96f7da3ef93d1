"""One machine, message by message: lists of events in, lists of actions out.

Blocks hold 4 tokens; a token's KV cache is 10 bytes.
"""

import math
from unittest.mock import ANY

import pytest

from emu.core.batch import Batch, DecodeJoin, Prefill
from emu.core.batching.chunked_prefill import ChunkedPrefill
from emu.core.batching.fcfs import Fcfs
from emu.core.batching.mixed_continuous import MixedContinuous
from emu.core.facts import KVHandedOver, StaleDropped
from emu.core.handover import Handover
from emu.core.kv_cache import KVCache
from emu.core.machine import Machine
from emu.core.messages import (
    NETWORK,
    SCHEDULER,
    Assigned,
    Cancelled,
    CutRun,
    DropAttempt,
    FlowRequested,
    FreeKV,
    KVLost,
    KVPulled,
    KVReady,
    KVReceived,
    KVTransferFailed,
    KVTransferred,
    OfferKV,
    PrefillDone,
    PullKV,
    RequestEvicted,
    RequestFinished,
    RequestRejected,
    ResumeOutput,
    RunSteps,
    Send,
    SendOutput,
    StepsDone,
    StepsPassed,
)
from emu.core.timing.constant import ConstantTiming

ME, PEER = 0, 9


@pytest.fixture
def machine():
    return machine_of()


def machine_of(num_blocks=100, batching=None, max_held_fraction=0.5, layerwise_min_tokens=math.inf):
    """Blocks of 4 tokens, 10 bytes of KV a token in 4 layers, 1 ms a prompt token and 30 ms a decode step."""
    kv = KVCache(num_blocks, block_tokens=4, watermark=0)
    handover = Handover(10, 4, ConstantTiming(0.001, 0.03), layerwise_min_tokens)
    return Machine(ME, kv, batching or Fcfs(max_batch_tokens=10, max_num_pauses=2), handover, max_held_fraction)


def play(machine, *story):
    """Each entry of the story is (time, event, the actions it has to be answered with)."""
    for now_s, event, actions in story:
        assert machine.handle(event, now_s) == actions, f"at {now_s} on {event}"


def assigned(request_id, num_tokens, decode_on=PEER, attempt=1, num_generated=0):
    return Assigned(request_id, attempt, float(request_id), num_tokens, num_generated, decode_on)


def ready(request_id, num_tokens):
    return KVReady(request_id, 1, float(request_id), num_tokens, 1, PEER, 0.0, 0.0)


def prefills(*prompts):
    """The batch of these prompts alone: (request, tokens) each."""
    return Batch(tuple(Prefill(request_id, 1, num_tokens, 0) for request_id, num_tokens in prompts), (), (), 0, 0, 0)


def joins(*decodes, num_decodes=1, context_tokens, leaves=()):
    """The batch of these decodes alone: (request, cached tokens, generated tokens) of each that joins."""
    joining = tuple(DecodeJoin(request_id, 1, *counts) for request_id, *counts in decodes)
    return Batch((), joining, leaves, num_decodes, context_tokens, 0)


def start_decode(machine, request_id, num_tokens, at_s=0.0):
    """Hand the machine a KV cache, all at once."""
    machine.handle(ready(request_id, num_tokens), at_s)
    return machine.handle(KVReceived(request_id, 1), at_s)


# --- prefill ----------------------------------------------------------------------------------------------------------


def test_a_prompt_is_prefilled_held_and_freed(machine):
    batch = prefills((7, 8))
    play(
        machine,
        (1.0, assigned(7, 8), [RunSteps(batch, 1)]),
        (
            1.2,
            StepsDone(1, ()),
            [
                SendOutput(SCHEDULER, PrefillDone(7, 1)),
                OfferKV(PEER, KVReady(7, 1, 7.0, 8, 1, ME, 0.0, 0.0)),
            ],
        ),
    )
    assert machine.kv.num_used == 2
    play(machine, (1.5, KVPulled(7, 1), [FreeKV(7, 1)]))
    assert machine.kv.num_used == machine.prompts.num_held_blocks == 0


def test_a_one_token_answer_ends_with_its_prefill(machine):
    play(
        machine,
        (1.0, assigned(7, 8), [RunSteps(prefills((7, 8)), 1)]),
        (1.2, StepsDone(1, (7,)), [Send(SCHEDULER, RequestFinished(7, 1))]),
    )
    assert machine.kv.num_used == machine.prompts.num_held_blocks == 0


def test_what_arrives_during_a_prefill_shares_the_next_ones(machine):
    held = [SendOutput(SCHEDULER, ANY), OfferKV(PEER, ANY)]
    play(
        machine,
        (0.0, assigned(1, 4), [RunSteps(prefills((1, 4)), 1)]),
        (0.1, assigned(2, 4), []),
        (0.2, assigned(3, 6), []),
        (0.3, assigned(4, 1), []),
        (0.5, StepsDone(1, ()), [*held, RunSteps(prefills((2, 4), (3, 6)), 1)]),
        (0.9, StepsDone(1, ()), [*held, *held, RunSteps(prefills((4, 1)), 1)]),
    )


def test_a_restart_prefills_its_tokens_again(machine):
    batch = Batch((Prefill(7, 2, 12, 4),), (), (), 0, 0, 0)
    play(
        machine,
        (1.0, assigned(7, 12, attempt=2, num_generated=4), [DropAttempt(7, 1), RunSteps(batch, 1)]),
        (
            1.2,
            StepsDone(1, ()),
            [SendOutput(SCHEDULER, PrefillDone(7, 2)), OfferKV(PEER, KVReady(7, 2, 7.0, 12, 5, ME, 0.0, 0.0))],
        ),
    )


def test_prompts_wait_while_half_of_the_blocks_is_held():
    machine = machine_of(num_blocks=5)
    play(
        machine,
        (0.0, assigned(1, 8), [RunSteps(prefills((1, 8)), 1)]),
        (0.1, assigned(2, 8), []),
        (0.5, StepsDone(1, ()), [SendOutput(SCHEDULER, PrefillDone(1, 1)), ANY]),
        (0.7, KVPulled(1, 1), [FreeKV(1, 1), RunSteps(prefills((2, 8)), 1)]),
    )


# --- hand-over and decode ---------------------------------------------------------------------------------------------


def test_a_kv_cache_is_pulled_and_its_request_decodes_to_the_end():
    machine = machine_of(num_blocks=3)
    batch = joins((7, 8, 1), context_tokens=9)
    play(
        machine,
        (2.0, ready(7, 8), [PullKV(FlowRequested(7, 1, PEER, ME, 80, 0.0, 0.0, 4))]),
        (
            2.4,
            KVReceived(7, 1),
            [
                Send(PEER, KVPulled(7, 1)),
                Send(SCHEDULER, KVTransferred(7, 1)),
                KVHandedOver(7, 1, PEER, ME, 8, 2.0, 2.0),
                RunSteps(batch, 4),  # 3 blocks hold 12 tokens: those of 4 more steps
            ],
        ),
        (2.5, StepsPassed(2), []),
        (2.49, StepsDone(1, (7,)), [Send(SCHEDULER, RequestFinished(7, 1))]),
    )
    assert machine.kv.num_used == 0


def test_where_both_phases_are_here_the_decode_follows_its_prefill(machine):
    play(
        machine,
        (1.0, assigned(7, 8, decode_on=ME), [RunSteps(prefills((7, 8)), 1)]),
        (
            1.2,
            StepsDone(1, ()),
            [SendOutput(SCHEDULER, PrefillDone(7, 1)), RunSteps(joins((7, 8, 1), context_tokens=9), ANY)],
        ),
    )
    assert machine.kv.num_used == 3  # the slot of its second token included


def test_a_kv_cache_waits_for_blocks_to_come_free():
    machine = machine_of(num_blocks=4)
    start_decode(machine, 1, 8)
    play(
        machine,
        (1.0, ready(2, 8), []),
        (
            2.0,
            StepsDone(1, (1,)),
            [
                Send(SCHEDULER, RequestFinished(1, 1)),
                PullKV(FlowRequested(2, 1, PEER, ME, 80, 0.0, 0.0, 4)),
            ],
        ),
        (2.5, KVReceived(2, 1), [ANY, ANY, KVHandedOver(2, 1, PEER, ME, 8, 1.0, 2.0), ANY]),
    )


def test_a_newcomer_joins_at_the_next_boundary_of_the_run(machine):
    for request_id, num_tokens in ((1, 8), (2, 4), (3, 5)):
        machine.handle(ready(request_id, num_tokens), 0.0)
    play(
        machine,
        (0.1, KVReceived(1, 1), [ANY, ANY, ANY, RunSteps(joins((1, 8, 1), context_tokens=9), ANY)]),
        (0.2, KVReceived(2, 1), [ANY, ANY, ANY, CutRun()]),
        (0.25, KVReceived(3, 1), [ANY, ANY, ANY]),  # cut already
        (
            0.3,
            StepsDone(1, ()),
            [
                # 9 + 1 tokens of the first by now, 4 + 1 and 5 + 1 of the others
                RunSteps(joins((2, 4, 1), (3, 5, 1), num_decodes=3, context_tokens=21), ANY),
            ],
        ),
    )


def test_a_run_is_cut_when_a_reservation_takes_the_blocks_it_counts_on():
    machine = machine_of(num_blocks=4)
    assert start_decode(machine, 1, 3)[-1] == RunSteps(ANY, 13)
    play(machine, (0.1, ready(2, 7), [PullKV(ANY), CutRun()]))


# --- both phases at once ----------------------------------------------------------------------------------------------


def test_fcfs_pauses_the_decodes_for_a_prompt(machine):
    start_decode(machine, 1, 8)
    batch = Batch((Prefill(2, 1, 6, 0),), (), (1,), 0, 0, 1)
    play(
        machine,
        (0.1, assigned(2, 6), [CutRun()]),
        (0.3, StepsDone(1, ()), [RunSteps(batch, 1)]),
        (
            0.5,
            StepsDone(1, ()),
            # It comes back with the token of its first step.
            [ANY, ANY, RunSteps(joins((1, 9, 2), context_tokens=10), ANY)],
        ),
    )


def test_fcfs_gives_paused_decodes_a_step_when_they_have_waited_twice(machine):
    start_decode(machine, 1, 8)
    for request_id in (2, 3, 4):
        machine.handle(assigned(request_id, 10), 0.1)
    held = [ANY, ANY]

    def prefill(request_id, leaves):
        return RunSteps(Batch((Prefill(request_id, 1, 10, 0),), (), leaves, 0, 0, 1), 1)

    play(
        machine,
        (0.2, StepsDone(1, ()), [prefill(2, leaves=(1,))]),
        (0.3, StepsDone(1, ()), [*held, prefill(3, leaves=())]),
        (0.4, StepsDone(1, ()), [*held, RunSteps(joins((1, 9, 2), context_tokens=10), 1)]),
        (0.5, StepsDone(1, ()), [prefill(4, leaves=(1,))]),
    )


def test_while_a_prompt_waits_for_blocks_every_step_is_a_decision():
    machine = machine_of(num_blocks=4)
    start_decode(machine, 1, 8)
    play(
        machine,
        (0.1, assigned(2, 8, decode_on=ME), [CutRun()]),
        (0.2, StepsDone(1, ()), [RunSteps(joins(context_tokens=10), 1)]),
        (0.3, StepsDone(1, (1,)), [Send(SCHEDULER, RequestFinished(1, 1)), RunSteps(prefills((2, 8)), 1)]),
    )


def test_mixed_batching_shares_the_step_and_pauses_what_does_not_fit():
    machine = machine_of(batching=MixedContinuous(max_batch_tokens=7, max_num_pauses=2))
    start_decode(machine, 1, 8)
    start_decode(machine, 2, 8)
    machine.handle(StepsDone(1, ()), 0.1)  # the second joins
    play(
        machine,
        (0.2, assigned(3, 6), [CutRun()]),
        (
            0.3,
            StepsDone(1, ()),
            # The later one is left out; the earlier one has cached 10 tokens by now.
            [RunSteps(Batch((Prefill(3, 1, 6, 0),), (), (2,), 1, 11, 1), 1)],
        ),
        (
            0.4,
            StepsDone(1, ()),
            [ANY, ANY, RunSteps(joins((2, 9, 2), num_decodes=2, context_tokens=12 + 10), ANY)],
        ),
    )


def test_without_blocks_the_latest_arrival_is_evicted():
    machine = machine_of(num_blocks=4)
    machine.handle(ready(1, 3), 0.0)
    machine.handle(ready(2, 7), 0.0)
    play(
        machine,
        (0.1, KVReceived(1, 1), [ANY, ANY, ANY, RunSteps(joins((1, 3, 1), context_tokens=4), 5)]),
        (0.2, KVReceived(2, 1), [ANY, ANY, ANY, CutRun()]),
        # The first takes the last free block; the second needs one for its next token but this.
        (0.3, StepsDone(1, ()), [RunSteps(joins((2, 7, 1), num_decodes=2, context_tokens=13), 1)]),
        (
            0.4,
            StepsDone(1, ()),
            [
                SendOutput(SCHEDULER, RequestEvicted(2, 1, 2)),
                DropAttempt(2, 1),
                RunSteps(joins(context_tokens=6, leaves=(2,)), ANY),
            ],
        ),
    )
    assert machine.kv.num_used == 2


def test_token_ids_are_given_to_the_runtime_and_change_nothing_else():
    with_ids, without = (machine_of().handle(assigned(7, 8)._replace(output_ids=ids), 1.0) for ids in (b"1234", b""))
    assert without == [RunSteps(prefills((7, 8)), 1)]
    assert with_ids == [ResumeOutput(7, 1, b"1234"), *without]


# --- what cannot be, and what is called off ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        (assigned(7, 20, decode_on=ME), "20 tokens do not fit the 5 KV blocks of machine 0"),
        (ready(7, 20), "20 tokens do not fit the 5 KV blocks of machine 0"),
        (assigned(7, 9), "9 tokens need 3 KV blocks held for their hand-over; machine 0 holds at most 2"),
    ],
)
def test_what_can_never_fit_is_rejected(event, cause):
    machine = machine_of(num_blocks=5)
    play(machine, (1.0, event, [Send(SCHEDULER, RequestRejected(7, 1, cause))]))
    assert machine.kv.num_used == 0


def test_a_waiting_prompt_is_called_off(machine):
    play(
        machine,
        (0.0, assigned(1, 10), [ANY]),
        (0.1, assigned(2, 10), []),
        (0.2, Cancelled(2, 1), [DropAttempt(2, 1)]),
        (0.3, StepsDone(1, ()), [ANY, ANY]),
    )


def test_a_prompt_in_the_step_in_flight_is_called_off_at_its_end(machine):
    play(
        machine,
        (0.0, assigned(1, 10), [ANY]),
        (0.2, Cancelled(1, 1), [DropAttempt(1, 1)]),
        (0.3, StepsDone(1, ()), []),
    )
    assert machine.kv.num_used == machine.prompts.num_held_blocks == 0


def test_a_chunk_in_the_step_in_flight_is_called_off_at_its_end():
    machine = machine_of(batching=ChunkedPrefill(max_batch_tokens=4))
    play(
        machine,
        (0.0, assigned(1, 10), [RunSteps(Batch((Prefill(1, 1, 4, 0, 0, 6),), (), (), 0, 0, 0), 1)]),
        (0.1, StepsDone(1, ()), [RunSteps(Batch((Prefill(1, 1, 4, 0, 4, 2),), (), (), 0, 0, 0), 1)]),
        (0.2, Cancelled(1, 1), [DropAttempt(1, 1)]),
        (0.3, StepsDone(1, ()), []),
    )
    assert machine.kv.num_used == machine.prompts.num_held_blocks == 0


def test_a_prompt_between_two_of_its_chunks_is_called_off():
    """After its first chunk a decode came that takes all of the budget."""
    machine = machine_of(batching=ChunkedPrefill(max_batch_tokens=1))
    machine.handle(assigned(1, 10), 0.0)
    machine.handle(ready(2, 8), 0.01)
    machine.handle(KVReceived(2, 1), 0.02)
    machine.handle(StepsDone(1, ()), 0.1)
    num_used = machine.kv.num_used
    assert [seq.num_prefilled for seq in machine.prompts.waiting] == [1]
    assert machine.handle(Cancelled(1, 1), 0.11) == [DropAttempt(1, 1)]
    assert (machine.kv.num_used, machine.prompts.num_held_blocks) == (num_used - 3, 0)


def test_a_held_kv_cache_is_called_off(machine):
    machine.handle(assigned(1, 10), 0.0)
    machine.handle(StepsDone(1, ()), 0.3)
    play(
        machine,
        (0.4, Cancelled(1, 1), [DropAttempt(1, 1), FreeKV(1, 1)]),
        (0.5, KVPulled(1, 1), [StaleDropped(1, 1, "KVPulled")]),
    )
    assert machine.kv.num_used == machine.prompts.num_held_blocks == 0


def test_a_pull_is_called_off(machine):
    play(
        machine,
        (0.0, ready(1, 10), [ANY]),
        (0.4, Cancelled(1, 1), [DropAttempt(1, 1), Send(NETWORK, Cancelled(1, 1))]),
        (0.5, KVReceived(1, 1), [StaleDropped(1, 1, "KVReceived")]),
    )
    assert machine.kv.num_used == 0


@pytest.mark.parametrize("lost_s", [0.4, 3.0])  # while its flow is under way, or long after it ended as modelled
def test_a_kv_cache_that_cannot_be_had_is_given_up(machine, lost_s):
    play(
        machine,
        (0.0, ready(1, 10), [ANY]),
        (
            lost_s,
            KVLost(1, 1, "broken"),
            [Send(SCHEDULER, KVTransferFailed(1, 1, "broken")), DropAttempt(1, 1), Send(NETWORK, Cancelled(1, 1))],
        ),
    )
    assert (machine.kv.num_used, machine.pulling) == (0, {})
    play(
        machine,
        (3.1, KVLost(1, 1, "broken"), [StaleDropped(1, 1, "KVLost")]),
        (3.2, KVReceived(1, 1), [StaleDropped(1, 1, "KVReceived")]),
        (3.3, Cancelled(1, 1), []),
        (3.4, ready(1, 10)._replace(attempt=2), [PullKV(FlowRequested(1, 2, PEER, ME, 100, 0.0, 0.0, 4))]),
        (3.5, KVLost(1, 1, "broken"), [StaleDropped(1, 1, "KVLost")]),
    )


def test_a_kv_cache_that_is_here_cannot_be_lost(machine):
    start_decode(machine, 1, 8)
    play(machine, (0.4, KVLost(1, 1, "broken"), [StaleDropped(1, 1, "KVLost")]))
    assert list(machine.decodes.active) == [1]


def test_the_blocks_of_a_kv_cache_that_is_given_up_go_to_who_waits_for_them():
    machine = machine_of(num_blocks=4)
    play(
        machine,
        (0.0, ready(1, 8), [PullKV(ANY)]),
        (0.1, ready(2, 8), []),
        (0.2, assigned(3, 8, decode_on=ME), []),
        (
            0.4,
            KVLost(1, 1, "broken"),
            [ANY, ANY, Send(NETWORK, Cancelled(1, 1)), PullKV(FlowRequested(2, 1, PEER, ME, 80, 0.0, 0.0, 4))],
        ),
        (0.5, KVLost(2, 1, "broken"), [ANY, ANY, ANY, RunSteps(prefills((3, 8)), 1)]),
    )


@pytest.mark.parametrize("finished", [(), (1,)])
def test_a_decode_is_called_off_at_the_next_boundary(machine, finished):
    start_decode(machine, 1, 8)
    play(
        machine,
        (0.1, Cancelled(1, 1), [DropAttempt(1, 1), CutRun()]),
        (0.3, StepsDone(1, finished), []),
    )
    assert machine.kv.num_used == 0


def test_the_others_decode_on_without_one_called_off(machine):
    machine.handle(ready(1, 8), 0.0)
    start_decode(machine, 2, 4)
    machine.handle(KVReceived(1, 1), 0.0)
    play(
        machine,
        (0.1, StepsDone(1, ()), [RunSteps(joins((1, 8, 1), num_decodes=2, context_tokens=15), ANY)]),
        (0.2, Cancelled(2, 1), [DropAttempt(2, 1), CutRun()]),
        (0.3, StepsDone(1, ()), [RunSteps(joins(context_tokens=10, leaves=(2,)), ANY)]),
    )


def test_an_attempt_that_was_called_off_is_not_taken_up(machine):
    play(
        machine,
        (0.0, Cancelled(1, 1), [DropAttempt(1, 1)]),
        (0.1, assigned(1, 8), [StaleDropped(1, 1, "Assigned")]),
        (0.2, ready(1, 8), [StaleDropped(1, 1, "KVReady")]),
        (0.3, assigned(1, 8, attempt=2), [RunSteps(ANY, 1)]),
    )


def test_a_new_attempt_calls_off_the_old_one(machine):
    machine.handle(assigned(1, 8), 0.0)
    machine.handle(StepsDone(1, ()), 0.3)
    play(
        machine,
        (0.4, assigned(1, 8, attempt=2), [DropAttempt(1, 1), FreeKV(1, 1), RunSteps(ANY, 1)]),
        (0.5, Cancelled(1, 1), []),
    )
