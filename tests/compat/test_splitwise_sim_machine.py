"""The compatible machine, event by event: what it answers."""

import pytest

from emu.compat.splitwise_sim.batcher import BatchLimits
from emu.compat.splitwise_sim.machine import NO_LIMIT, SplitwiseSimMachine
from emu.core.batch import Batch, DecodeJoin, Prefill
from emu.core.facts import KVHandedOver, StaleDropped
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
    QueueChanged,
    RequestFinished,
    RunSteps,
    Send,
    SendOutput,
    SetTimer,
    StepsDone,
    StepsPassed,
)
from emu.core.oracle import OutputOracle

ME, OTHER = 1, 2
OUTPUTS = [5, 5, 5, 5, 90]


def machine_of(num_bytes=1000, reports_queue=False):
    """10 B a token; batches of 4 sequences and 10 tokens."""
    return SplitwiseSimMachine(ME, num_bytes, BatchLimits(4, 10, 2), 1.0, 10, OutputOracle(OUTPUTS), reports_queue)


def prompt(request_id, num_tokens, decode_on=OTHER, attempt=1):
    return Assigned(request_id, attempt, 0.1 * request_id, num_tokens, 0, decode_on)


def offer(request_id, num_tokens=3, attempt=1):
    return KVReady(request_id, attempt, 0.1 * request_id, num_tokens, 1, OTHER, 0.0, 0.0)


def prefill_of(*requests, num_decodes=0, context_tokens=0, leaves=(), num_paused=0):
    prefills = tuple(Prefill(request_id, 1, num_tokens, 0) for request_id, num_tokens in requests)
    return RunSteps(Batch(prefills, (), leaves, num_decodes, context_tokens, num_paused), 1)


def decode_of(*joins, num_decodes, context_tokens, leaves=()):
    return RunSteps(Batch((), joins, leaves, num_decodes, context_tokens, 0), NO_LIMIT)


def receive(machine, request_id, now_s=0.0, num_tokens=3):
    machine.handle(offer(request_id, num_tokens), now_s)
    return machine.handle(KVReceived(request_id, 1), now_s)


def test_a_prompt_is_prefilled_held_and_released():
    machine = machine_of()
    assert machine.handle(prompt(0, 3), 0.0) == [prefill_of((0, 3))]
    assert machine.memory.num_used == 40  # the prompt and its first token
    done = machine.handle(StepsDone(1, ()), 0.5)
    offered = KVReady(0, 1, 0.0, 3, 1, ME, 0.0, 0.0)
    assert done == [SendOutput(SCHEDULER, PrefillDone(0, 1)), OfferKV(OTHER, offered)]
    assert machine.memory.num_used == 40
    assert machine.handle(KVPulled(0, 1), 0.7) == [FreeKV(0, 1)]
    assert machine.memory.num_used == 0


def test_a_hand_over_takes_its_memory_and_then_that_of_its_whole_output():
    machine = machine_of()
    flow = FlowRequested(0, 1, OTHER, ME, 30, 2.0, 2.0, 1)
    assert machine.handle(offer(0), 2.0) == [PullKV(flow)]
    assert machine.memory.num_used == 40
    assert machine.handle(KVReceived(0, 1), 3.0) == [
        Send(OTHER, KVPulled(0, 1)),
        Send(SCHEDULER, KVTransferred(0, 1)),
        KVHandedOver(0, 1, OTHER, ME, 3, 2.0, 2.0),
        decode_of(DecodeJoin(0, 1, 3, 1), num_decodes=1, context_tokens=4),
    ]
    assert machine.memory.num_used == 40 + 40
    done = machine.handle(StepsDone(4, (0,)), 7.0)
    assert done == [Send(SCHEDULER, RequestFinished(0, 1))]
    assert machine.memory.num_used == 0


def test_a_hand_over_without_memory_asks_again_a_second_later_each_on_its_own():
    machine = machine_of(num_bytes=90)
    receive(machine, 0)  # takes 80 of them
    large, small = offer(1, num_tokens=5), offer(2, num_tokens=0)
    assert machine.handle(large, 1.5) == [SetTimer(2.5, large)]
    assert machine.handle(small, 1.6) == [
        PullKV(FlowRequested(2, 1, OTHER, ME, 0, 1.6, 1.6, 1)),
    ]
    assert machine.handle(large, 2.5) == [SetTimer(3.5, large)]
    machine.handle(StepsDone(4, (0,)), 2.7)
    assert machine.handle(large, 3.5) == [PullKV(FlowRequested(1, 1, OTHER, ME, 50, 3.5, 3.5, 1))]
    arrived = machine.handle(KVReceived(1, 1), 3.6)
    assert arrived[2] == KVHandedOver(1, 1, OTHER, ME, 5, 1.5, 3.5)


def test_no_retry_outlives_its_attempt():
    machine = machine_of(num_bytes=80)
    receive(machine, 0)
    machine.handle(offer(1), 1.0)
    machine.handle(Cancelled(1, 1), 1.5)
    assert machine.handle(offer(1), 2.0) == [StaleDropped(1, 1, "KVReady")]


def test_an_arriving_decode_cuts_the_block_at_its_next_boundary():
    machine = machine_of()
    receive(machine, 0)
    assert receive(machine, 1)[-1] == CutRun()
    assert CutRun() not in receive(machine, 2)  # once is enough
    done = machine.handle(StepsDone(1, ()), 1.0)
    joins = (DecodeJoin(1, 1, 3, 1), DecodeJoin(2, 1, 3, 1))
    assert done == [decode_of(*joins, num_decodes=3, context_tokens=5 + 4 + 4)]


def test_a_run_that_nothing_ended_goes_on_unchanged():
    machine = machine_of()
    receive(machine, 0)
    machine.handle(StepsPassed(1), 1.5)
    done = machine.handle(StepsDone(1, ()), 2.0)
    assert done == [decode_of(num_decodes=1, context_tokens=6)]
    assert machine.batcher.num_starts == 1


@pytest.mark.parametrize(("num_tokens", "cuts"), [(8, True), (10, True), (11, False)])
def test_a_prompt_cuts_a_block_unless_it_is_beyond_the_limit(num_tokens, cuts):
    machine = machine_of()
    for request_id in range(3):
        receive(machine, request_id)
    machine.handle(StepsDone(1, ()), 1.0)
    assert machine.handle(prompt(3, num_tokens), 1.5) == [CutRun()] * cuts


def test_the_decode_of_a_colocated_request_cuts_the_block_where_its_prompt_does_not():
    machine = machine_of()
    receive(machine, 0)
    assert machine.handle(prompt(1, 11, decode_on=ME), 0.5) == [CutRun()]


def test_decodes_do_not_cut_a_full_batch():
    machine = machine_of()
    for request_id in range(4):
        receive(machine, request_id)
    machine.handle(StepsDone(1, ()), 1.0)
    assert len(machine.batcher.active.tasks) == 4
    assert CutRun() not in receive(machine, 4)


def test_what_arrives_during_a_prefill_waits_for_its_end():
    machine = machine_of()
    machine.handle(prompt(0, 3), 0.0)
    assert machine.handle(prompt(1, 3), 0.1) == []
    assert machine.handle(prompt(2, 8), 0.2) == []
    done = machine.handle(StepsDone(1, ()), 0.5)
    assert done[-1] == prefill_of((1, 3))  # 11 tokens are too many


def test_a_colocated_request_decodes_after_its_prompt_and_keeps_one_memory():
    machine = machine_of()
    assert machine.handle(prompt(0, 3, decode_on=ME), 0.0) == [prefill_of((0, 3))]
    done = machine.handle(StepsDone(1, ()), 0.5)
    join = decode_of(DecodeJoin(0, 1, 3, 1), num_decodes=1, context_tokens=4)
    assert done == [SendOutput(SCHEDULER, PrefillDone(0, 1)), join]
    assert machine.memory.num_used == 40 + 40
    machine.handle(StepsDone(4, (0,)), 4.0)
    assert machine.memory.num_used == 0
    assert not machine.decodes


def test_a_one_token_answer_ends_with_its_prompt():
    machine = machine_of()
    machine.handle(prompt(0, 3, decode_on=ME), 0.0)
    done = machine.handle(StepsDone(1, (0,)), 0.5)
    assert done == [Send(SCHEDULER, RequestFinished(0, 1))]
    assert not machine.is_running
    assert machine.memory.num_used == 0
    assert not machine.batcher.pending


def test_a_long_prompt_pauses_the_decodes_which_keep_their_memory():
    machine = machine_of()
    receive(machine, 0)
    machine.handle(prompt(1, 11), 0.5)
    machine.handle(prompt(2, 1), 0.6)  # cuts the block
    done = machine.handle(StepsDone(1, ()), 1.0)
    assert done == [prefill_of((1, 11), leaves=(0,), num_paused=1)]
    assert machine.memory.num_used == 80 + 120
    done = machine.handle(StepsDone(1, ()), 2.0)
    joins = (DecodeJoin(0, 1, 4, 2),)
    assert done[-1] == RunSteps(Batch((Prefill(2, 1, 1, 0),), joins, (), 1, 5, 0), 1)


def test_an_idle_machine_stays_so_where_the_arriving_task_has_no_memory():
    machine = machine_of(num_bytes=100)
    assert machine.handle(prompt(4, 10), 0.0) == []
    assert not machine.is_running
    assert machine.handle(prompt(0, 3), 0.1) == []  # which starts a batch, but the first prompt stops it
    assert machine.batcher.num_starts == 1


def test_released_memory_starts_what_waited_for_it():
    machine = machine_of(num_bytes=100)
    machine.handle(prompt(0, 5), 0.0)
    machine.handle(StepsDone(1, ()), 0.5)
    assert machine.handle(prompt(1, 6), 0.6) == []
    assert machine.handle(KVPulled(0, 1), 0.7) == [FreeKV(0, 1), prefill_of((1, 6))]


def test_released_memory_cuts_a_block_if_anything_waits():
    machine = machine_of()
    receive(machine, 0)
    machine.handle(prompt(1, 5), 0.1)
    machine.handle(StepsDone(1, ()), 0.5)
    machine.handle(StepsDone(1, ()), 1.0)  # the prompt is held, and the decode alone again
    machine.handle(prompt(2, 11), 1.2)
    assert machine.handle(KVPulled(1, 1), 1.3) == [FreeKV(1, 1), CutRun()]


def test_the_scheduler_is_told_of_the_queue_what_it_cannot_know():
    machine = machine_of(reports_queue=True)
    assert machine.handle(prompt(0, 3), 0.0) == [prefill_of((0, 3))]  # it starts, as the scheduler expects
    assert machine.handle(prompt(1, 3), 0.1) == []  # it waits, likewise
    assert machine.handle(StepsDone(1, ()), 0.5)[-1] == Send(SCHEDULER, QueueChanged(ME, False))
    machine = machine_of(num_bytes=10, reports_queue=True)
    assert machine.handle(prompt(0, 3), 0.0) == [Send(SCHEDULER, QueueChanged(ME, True))]  # for want of memory


def test_a_cancelled_request_is_forgotten_wherever_it_is():
    machine = machine_of()
    machine.handle(prompt(0, 3, decode_on=ME), 0.0)  # in the step
    machine.handle(prompt(1, 3, decode_on=ME), 0.0)  # waits
    machine.handle(offer(2), 0.0)  # is pulled
    for request_id, actions in enumerate([[], [], [Send(NETWORK, Cancelled(2, 1))]]):
        assert machine.handle(Cancelled(request_id, 1), 0.1) == [DropAttempt(request_id, 1), *actions]
    done = machine.handle(StepsDone(1, ()), 0.5)
    assert done == []
    assert machine.memory.num_used == 0
    assert not machine.is_running
    assert machine.handle(KVReceived(2, 1), 0.6) == [StaleDropped(2, 1, "KVReceived")]
    assert machine.handle(prompt(0, 3), 0.7) == [StaleDropped(0, 1, "Assigned")]
    assert machine.handle(prompt(0, 3, attempt=2), 0.8)[0].batch.prefills == (Prefill(0, 2, 3, 0),)


def test_a_kv_cache_that_cannot_be_had_is_given_up():
    machine = machine_of(num_bytes=100)
    machine.handle(offer(0), 0.0)
    machine.handle(prompt(1, 6), 0.1)  # waits for memory
    assert machine.handle(KVLost(0, 1, "broken"), 0.5) == [
        Send(SCHEDULER, KVTransferFailed(0, 1, "broken")),
        DropAttempt(0, 1),
        Send(NETWORK, Cancelled(0, 1)),
        prefill_of((1, 6)),
    ]
    assert machine.memory.num_used == 70
    assert machine.handle(KVLost(0, 1, "broken"), 0.6) == [StaleDropped(0, 1, "KVLost")]
    assert machine.handle(KVReceived(0, 1), 0.7) == [StaleDropped(0, 1, "KVReceived")]
    assert machine.handle(Cancelled(0, 1), 0.8) == []


def test_a_request_that_starts_again_with_its_tokens_takes_memory_for_the_others():
    machine = machine_of()
    machine.handle(KVReady(0, 2, 0.0, 4, 2, OTHER, 0.0, 0.0), 0.0)  # 3 prompt tokens and the first of 5
    machine.handle(KVReceived(0, 2), 1.0)
    assert machine.memory.num_used == (3 + 5) * 10
    machine.handle(prompt(1, 4, decode_on=ME), 2.0)
    machine.handle(prompt(2, 4, attempt=2)._replace(num_generated=1, decode_on=ME), 2.0)  # likewise
    machine.handle(StepsDone(1, ()), 3.0)
    assert machine.decodes[2].kv_bytes == 30


def test_a_cancelled_decode_leaves_at_the_next_boundary():
    machine = machine_of()
    receive(machine, 0)
    receive(machine, 1)
    machine.handle(StepsDone(1, ()), 1.0)
    assert machine.handle(Cancelled(0, 1), 1.5) == [DropAttempt(0, 1), CutRun()]
    done = machine.handle(StepsDone(1, ()), 2.0)
    assert done == [decode_of(num_decodes=1, context_tokens=5, leaves=(0,))]
    assert machine.memory.num_used == 80


def test_the_memory_of_a_cancelled_request_starts_what_waited_for_it():
    machine = machine_of(num_bytes=100)
    machine.handle(prompt(0, 5), 0.0)
    machine.handle(StepsDone(1, ()), 0.5)
    assert machine.handle(prompt(1, 6), 0.6) == []
    assert machine.handle(Cancelled(0, 1), 0.7) == [DropAttempt(0, 1), FreeKV(0, 1), prefill_of((1, 6))]
