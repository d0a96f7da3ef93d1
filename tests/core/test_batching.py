"""Which prompts and which decodes share the next step."""

import pytest

from emu.core.batching.chunked_prefill import ChunkedPrefill
from emu.core.batching.fcfs import Fcfs
from emu.core.batching.mixed_continuous import MixedContinuous
from emu.core.sequence import Sequence

FCFS, MIXED = Fcfs(max_batch_tokens=10, max_num_pauses=2), MixedContinuous(max_batch_tokens=10, max_num_pauses=2)


def prompts(*lengths):
    """Prompts of these lengths, numbered from 0."""
    return [Sequence(number, 1, float(number), length, 0) for number, length in enumerate(lengths)]


def decodes(*num_pauses):
    """Decodes that were paused so often, numbered from 100, earliest arrival first."""
    seqs = [Sequence(100 + number, 1, float(number), 50, 1) for number in range(len(num_pauses))]
    for seq, times in zip(seqs, num_pauses, strict=True):
        seq.num_pauses = seq.num_pauses_in_a_row = times
    return seqs


def next_batch(policy, waiting, running):
    """The numbers of the prompts that run and of the decodes left out."""
    batch, left_out = policy.next_batch(iter(waiting), running)
    return [seq.request_id for seq in batch], [seq.request_id for seq in left_out]


@pytest.mark.parametrize("policy", [FCFS, MIXED])
@pytest.mark.parametrize(
    ("lengths", "batch"),
    [
        ([4, 6, 1], [0, 1]),  # just full
        ([4, 7, 1], [0]),  # the next does not fit, and none overtakes it
        ([11, 1], [0]),  # longer than a step: alone
        ([4, 11], [0]),
        ([3, 3, 3], [0, 1, 2]),
        ([], []),
    ],
)
def test_prompts_go_in_order_up_to_the_cap(policy, lengths, batch):
    assert next_batch(policy, prompts(*lengths), []) == (batch, [])


@pytest.mark.parametrize("policy", [FCFS, MIXED])
def test_no_more_prompts_are_asked_for_than_fit(policy):
    def waiting():
        yield from prompts(4, 6)
        raise AssertionError("asked for a third")

    assert [seq.request_id for seq in policy.next_batch(waiting(), [])[0]] == [0, 1]


# --- fcfs -------------------------------------------------------------------------------------------------------------


def test_fcfs_leaves_out_every_decode_while_prompts_run():
    assert next_batch(FCFS, prompts(3), decodes(0, 1)) == ([0], [100, 101])


def test_fcfs_without_an_admissible_prompt_runs_all_decodes():
    assert next_batch(FCFS, [], decodes(0, 1)) == ([], [])


def test_fcfs_gives_decodes_a_step_after_so_many_pauses_in_a_row():
    running = decodes(2, 0)
    assert next_batch(FCFS, prompts(3), running) == ([], [])
    running[0].num_pauses_in_a_row = 0  # it has taken part in a step since
    assert next_batch(FCFS, prompts(3), running) == ([0], [100, 101])


# --- mixed continuous -------------------------------------------------------------------------------------------------


def test_mixed_shares_the_step_while_all_fit():
    assert next_batch(MIXED, prompts(7), decodes(0, 0, 0)) == ([0], [])


def test_mixed_leaves_out_the_latest_arrivals_first():
    assert next_batch(MIXED, prompts(8), decodes(0, 0, 0, 0)) == ([0], [102, 103])


def test_mixed_runs_those_paused_most_often_first():
    assert next_batch(MIXED, prompts(8), decodes(0, 0, 1, 0)) == ([0], [101, 103])


def test_mixed_leaves_out_every_decode_beside_a_prompt_as_long_as_the_step():
    assert next_batch(MIXED, prompts(15), decodes(0, 1)) == ([0], [101, 100])


def test_mixed_prompts_displace_no_decode_paused_to_the_limit():
    # Two tokens of the step are theirs: the second prompt has to wait.
    assert next_batch(MIXED, prompts(5, 4), decodes(2, 2, 0)) == ([0], [])
    assert next_batch(MIXED, prompts(8, 4), decodes(2, 2, 0)) == ([0], [102])
    assert next_batch(MIXED, prompts(15), decodes(2, 2, 0)) == ([0], [102])


def test_mixed_without_an_admissible_prompt_runs_all_decodes():
    assert next_batch(MIXED, [], decodes(0, 1)) == ([], [])


# --- chunked_prefill --------------------------------------------------------------------------------------------------

CHUNKED = ChunkedPrefill(max_batch_tokens=10)


@pytest.mark.parametrize(
    ("lengths", "num_running", "chunks"),
    [
        ([25], 0, [10]),
        ([25], 4, [6]),
        ([4, 6, 1], 0, [4, 6]),
        ([4, 7, 1], 0, [4, 6]),
        ([3, 3], 9, [1]),
        ([3], 10, []),
    ],
)
def test_prompts_fill_what_the_decodes_leave(lengths, num_running, chunks):
    batch, left_out = CHUNKED.next_batch(iter(prompts(*lengths)), decodes(*[0] * num_running))
    assert ([seq.num_chunk for seq in batch], left_out) == (chunks, [])


def test_the_rest_of_a_prompt_is_what_is_left():
    (prompt,) = prompts(25)
    prompt.num_prefilled = 20
    assert CHUNKED.next_batch(iter([prompt]), [])[0][0].num_chunk == 5


def test_decodes_beyond_the_budget_are_left_out_those_paused_least_first():
    assert next_batch(CHUNKED, prompts(1), decodes(*[0] * 10, 1)) == ([], [109])
