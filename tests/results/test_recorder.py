"""Hand-written facts and the tables they make. Times are binary fractions, so that sums are exact."""

import numpy as np
from facts import decode, prefill, recorded

from emu.core.batch import Batch, DecodeJoin
from emu.core.facts import (
    KVHandedOver,
    PayloadMoved,
    PoolChanged,
    RequestEnded,
    RequestPlaced,
    RequestRequeued,
    StaleDropped,
    TokensEmitted,
)
from emu.results.columns import FAILED, FINISHED, UNFINISHED

NAN = np.nan


def equal(column, *expected):
    np.testing.assert_array_equal(column, expected)


def test_one_prefill_batch_a_hand_over_and_a_run_told_in_two_parts():
    columns = recorded(
        [(0.25, 100, 4), (0.5, 20, 1), (0.75, 7, 2)],
        [
            (0.25, RequestPlaced(0, 1, 0, 1)),
            (0.5, RequestPlaced(1, 1, 0, 1)),
            prefill(0, 0.5, 1.0, (0, 1, 100, 0), (1, 1, 20, 0), finished=(1,)),
            (1.0, RequestEnded(1, 1, "")),
            (1.5, KVHandedOver(0, 1, 0, 1, 100, 1.125, 1.25)),
            decode(1, 1.5, [1.75], (0, 1, 100, 1)),
            TokensEmitted(1, 1.75, (2.0, 2.5), None, (0,)),
            (2.625, RequestEnded(0, 1, "")),
        ],
    ).columns()
    requests, steps = columns.requests, columns.steps

    equal(requests.num_tokens_out, 4, 1, 0)
    equal(requests.prefill_on, 0, 0, -1)
    equal(requests.decode_on, 1, 1, -1)
    equal(requests.attempts, 1, 1, 0)
    equal(requests.prefill_start_s, 0.5, 0.5, NAN)
    equal(requests.first_token_s, 1.0, 1.0, NAN)
    equal(requests.decode_start_s, 1.5, NAN, NAN)
    equal(requests.second_token_s, 1.75, NAN, NAN)
    equal(requests.last_token_s, 2.5, 1.0, NAN)
    equal(requests.kv_ready_s, 1.125, NAN, NAN)
    equal(requests.kv_pull_s, 1.25, NAN, NAN)
    equal(requests.kv_received_s, 1.5, NAN, NAN)
    equal(requests.end_s, 2.625, 1.0, NAN)
    equal(requests.status, FINISHED, FINISHED, UNFINISHED)
    equal(requests.num_ends, 1, 1, 0)

    equal(steps.machine, 0, 1, 1, 1)
    equal(steps.start_s, 0.5, 1.5, 1.75, 2.0)
    equal(steps.end_s, 1.0, 1.75, 2.0, 2.5)
    equal(steps.num_prefills, 2, 0, 0, 0)
    equal(steps.prefill_tokens, 120, 0, 0, 0)
    equal(steps.num_decodes, 0, 1, 1, 1)
    equal(steps.context_tokens, 0, 10, 11, 12)
    equal(columns.batches.prompt_tokens, 100, 20)
    equal(columns.transfers.num_tokens, 100)

    gap_s, weight = columns.tokens.gaps(requests.status == FINISHED)
    equal(np.sort(np.repeat(gap_s, weight)), 0.25, 0.5, 0.75)


def test_requests_in_one_batch_share_its_gaps():
    columns = recorded(
        [(0, 8, 5), (0, 8, 3)],
        [
            prefill(0, 0, 1, (0, 1, 8, 0), (1, 1, 8, 0)),
            decode(1, 1, [2, 4], (0, 1, 8, 1), (1, 1, 8, 1), num_decodes=2, finished=(1,)),
            decode(1, 4, [8, 16], finished=(0,)),
        ],
    ).columns()
    gap_s, weight = columns.tokens.gaps(np.array([True, True]))
    equal(gap_s[weight > 1], 2)  # from 2 to 4, where both go on
    equal(np.sort(np.repeat(gap_s, weight)), 1, 1, 2, 2, 4, 8)
    gap_s, weight = columns.tokens.gaps(np.array([False, True]))
    equal(np.sort(np.repeat(gap_s, weight)), 1, 2)


def test_a_paused_request_has_one_long_gap():
    columns = recorded(
        [(0, 8, 4), (2, 8, 1)],
        [
            prefill(0, 0, 1, (0, 1, 8, 0)),
            decode(0, 1, [2], (0, 1, 8, 1)),
            TokensEmitted(0, 2, (5.0,), prefill(0, 2, 5, (1, 1, 8, 0)).batch._replace(leaves=(0,), num_paused=1), (1,)),
            decode(0, 5, [6, 7], (0, 1, 9, 2), finished=(0,)),
        ],
    ).columns()
    equal(columns.requests.num_tokens_out, 4, 1)
    equal(columns.requests.num_recomputed, 0, 0)
    equal(columns.steps.num_paused, 0, 0, 1, 0, 0)
    gap_s, weight = columns.tokens.gaps(np.array([True, False]))
    equal(np.sort(np.repeat(gap_s, weight)), 1, 1, 4)


def test_an_evicted_request_goes_on_where_it_was():
    columns = recorded(
        [(0, 8, 5)],
        [
            (0, RequestPlaced(0, 1, 0, 0)),
            prefill(0, 0, 1, (0, 1, 8, 0)),
            decode(0, 1, [2], (0, 1, 8, 1)),
            (2, RequestRequeued(0, 1, True, "no KV block was left for it")),
            (2, RequestPlaced(0, 2, 1, 1)),
            prefill(1, 3, 4, (0, 2, 10, 2)),
            decode(1, 4, [5, 6], (0, 2, 10, 3), finished=(0,)),
        ],
    ).columns()
    requests = columns.requests
    equal(requests.num_tokens_out, 5)
    equal(requests.num_recomputed, 0)
    equal(requests.evictions, 1)
    equal(requests.attempts, 2)
    equal(requests.prefill_on, 1)
    equal(requests.prefill_start_s, 0)
    equal(requests.decode_start_s, 1)
    equal(requests.last_token_s, 6)
    gap_s, weight = columns.tokens.gaps(np.array([True]))
    equal(np.sort(np.repeat(gap_s, weight)), 1, 1, 1, 2)


def test_a_token_that_comes_again_counts_at_its_first_emission():
    columns = recorded(
        [(0, 8, 5)],
        [
            (0, RequestPlaced(0, 1, 0, 1)),
            prefill(0, 0, 1, (0, 1, 8, 0)),
            decode(1, 1, [2, 3], (0, 1, 8, 1)),  # tokens 2 and 3; then the machine dies
            (4, PoolChanged(1, "dead")),
            (4, RequestRequeued(0, 1, False, "machine 1 died")),
            (4, RequestPlaced(0, 2, 0, 2)),
            prefill(0, 4, 5, (0, 2, 8, 0)),
            decode(2, 6, [7, 8, 9, 11], (0, 2, 8, 1), finished=(0,)),  # tokens 2 to 5
            (11, RequestEnded(0, 2, "")),
        ],
    ).columns()
    requests = columns.requests
    equal(requests.num_tokens_out, 5)
    equal(requests.num_recomputed, 3)
    equal(requests.evictions, 0)
    equal(requests.first_token_s, 1)
    equal(requests.second_token_s, 2)
    equal(requests.decode_start_s, 1)
    equal(requests.last_token_s, 11)
    gap_s, weight = columns.tokens.gaps(np.array([True]))
    equal(np.sort(np.repeat(gap_s, weight)), 1, 1, 2, 6)  # 3 -> 9 holds the recovery


def test_tokens_whose_news_died_are_missing_not_invented():
    columns = recorded(
        [(0, 8, 6)],
        [
            decode(1, 1, [2, 3], (0, 1, 8, 1)),  # the prefill's fact is lost, and with it token 1
            decode(1, 9, [10, 11], leaves=(0,), num_decodes=0),
            prefill(2, 12, 13, (0, 2, 12, 4)),  # token 5: token 4 is lost
        ],
    ).columns()
    requests = columns.requests
    equal(requests.num_tokens_out, 3)
    equal(requests.num_recomputed, 0)
    equal(requests.first_token_s, NAN)
    equal(requests.second_token_s, 2)
    equal(requests.last_token_s, 13)
    gap_s, weight = columns.tokens.gaps(np.array([True]))
    equal(np.repeat(gap_s, weight), 1)


def test_other_facts_are_kept_in_order():
    columns = recorded(
        [(0, 8, 2), (1, 9, 2)],
        [
            (0, PoolChanged(0, "prompt")),
            (0, PoolChanged(1, "token")),
            (1.5, KVHandedOver(1, 1, 0, 1, 9, 1.0, 1.25)),
            (1.25, KVHandedOver(0, 1, 0, 2, 8, 0.5, 0.75)),  # another machine's, told later
            (1.25, PayloadMoved(0, 1, 3 << 30, 80, 0.75, 1.0, 1.125, 1.25, 0.25, 0.5)),
            (2, PoolChanged(0, "mixed")),
            (3, RequestRequeued(0, 1, True, "no KV block was left for it")),
            (4, StaleDropped(0, 1, "KVReady")),
            (5, RequestEnded(0, 2, "no machine is left alive")),
            (5, RequestEnded(1, 1, "no machine is left alive")),
        ],
    ).columns()
    equal(columns.transfers.request_id, 0, 1)
    equal(columns.transfers.received_s, 1.25, 1.5)
    equal(columns.transfers.ready_s, 0.5, 1.0)
    equal(columns.transfers.destination, 2, 1)
    equal(columns.payloads.num_bytes, 3 << 30)
    equal(columns.payloads.verify_s, 0.5)
    assert columns.pool_moves.pool.tolist() == ["prompt", "token", "mixed"]
    equal(columns.pool_moves.time_s, 0, 0, 2)
    equal(columns.requeues.evicted, True)
    assert columns.drops.message.tolist() == ["KVReady"]
    equal(columns.requests.status, FAILED, FAILED)
    equal(columns.requests.cause, 1, 1)
    assert columns.requests.causes == ("", "no machine is left alive")


def test_a_run_in_which_nothing_happened():
    columns = recorded([(0, 8, 2)], []).columns()
    equal(columns.requests.status, UNFINISHED)
    equal(columns.requests.num_tokens_out, 0)
    assert len(columns.steps) == len(columns.segments) == len(columns.transfers) == 0
    gap_s, weight = columns.tokens.gaps(np.array([True]))
    assert len(gap_s) == len(weight) == 0


def test_a_batch_may_attend_to_more_tokens_than_32_bits_count():
    batch = Batch((), (DecodeJoin(0, 1, 2**31 - 2, 1), DecodeJoin(1, 1, 2**31 - 2, 1)), (), 2, 2**32 - 2, 0)
    columns = recorded([(0.0, 2**31 - 2, 3), (0.0, 2**31 - 2, 3)], [TokensEmitted(1, 1.0, (1.5, 2.0), batch, (0, 1))]).columns()
    equal(columns.batches.context_tokens, 2**32 - 2)
    equal(columns.steps.context_tokens, 2**32 - 2, 2**32)
