"""What holds in every run, checked on its facts. Part of the verdict, and of every test that runs a cluster."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from emu.results.columns import FINISHED, Columns
from emu.results.ledger import Ledger
from emu.results.token_times import num_covering

GAP_TOLERANCE_S = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """A run that is over. An `interrupted` one need not have ended what it began. Where machines are processes
    (`may_lose_facts`) the last facts of one that died may be missing, and with them tokens of the requests it served."""

    columns: Columns
    ledger: Ledger
    interrupted: bool = False
    may_lose_facts: bool = False


Finding = tuple[str, np.ndarray]  # ("request" or "machine", the numbers of those for which it does not hold)


def violations(run: Ended) -> list[str]:
    """One line for each invariant that does not hold, with its number and the first request or machine it fails for."""
    lines = []
    for number, (claim, find) in enumerate(INVARIANTS, start=1):
        noun, failed = find(run)
        if len(failed):
            lines.append(f"invariant {number}: {claim}: not so for {len(failed)}, the first {noun} {failed[0]}")
    return lines


def lost_tokens(columns: Columns) -> np.ndarray:
    """How many tokens of each finished request were asked for and never recorded."""
    requests = columns.requests
    return np.where(requests.status == FINISHED, requests.output_tokens - requests.num_tokens_out, 0)


def every_request_ends_once(run: Ended) -> Finding:
    num_ends = run.columns.requests.num_ends
    return "request", np.flatnonzero(num_ends > 1 if run.interrupted else num_ends != 1)


def tokens_out_are_tokens_asked(run: Ended) -> Finding:
    requests, moves = run.columns.requests, run.columns.pool_moves
    too_many = requests.num_tokens_out > requests.output_tokens
    too_few = lost_tokens(run.columns) > 0
    if run.may_lose_facts:
        dead = moves.machine[moves.pool == "dead"]
        too_few &= ~(np.isin(requests.prefill_on, dead) | np.isin(requests.decode_on, dead) | (requests.attempts > 1))
    return "request", np.flatnonzero(too_many | too_few)


def no_token_comes_twice_in_an_attempt(run: Ended) -> Finding:
    requests, segments = run.columns.requests, run.columns.segments
    order = np.lexsort((segments.first_token, segments.attempt, segments.request_id))
    request_id, attempt = segments.request_id[order], segments.attempt[order]
    first_token = segments.first_token[order]
    next_token = first_token + (segments.last_step - segments.first_step)[order] + 1
    same = (request_id[1:] == request_id[:-1]) & (attempt[1:] == attempt[:-1])
    twice = request_id[1:][same & (first_token[1:] < next_token[:-1])]
    # A first attempt that was not lost has nothing to recompute either.
    recomputed = np.flatnonzero((requests.num_recomputed > 0) & (requests.attempts <= 1))
    return "request", np.union1d(twice, recomputed)


def times_of_a_request_are_in_order(run: Ended) -> Finding:
    requests = run.columns.requests
    wrong = requests.prefill_start_s < requests.arrival_s  # a comparison with NaN, what never happened, is False
    wrong |= requests.first_token_s <= requests.prefill_start_s
    wrong |= requests.decode_start_s < requests.first_token_s
    wrong |= requests.second_token_s <= requests.first_token_s
    wrong |= requests.last_token_s < np.fmax(requests.first_token_s, requests.second_token_s)
    wrong |= requests.end_s < np.where(requests.status == FINISHED, requests.last_token_s, requests.arrival_s)
    return "request", np.flatnonzero(wrong)


def steps_of_a_machine_do_not_overlap(run: Ended) -> Finding:
    steps = run.columns.steps
    machine, start_s = steps.machine, steps.start_s
    wrong = steps.end_s <= start_s
    wrong[1:] |= (machine[1:] == machine[:-1]) & (start_s[1:] < steps.end_s[:-1])
    return "machine", np.unique(machine[wrong])


def every_pass_gives_its_decodes_a_token(run: Ended) -> Finding:
    segments, steps = run.columns.segments, run.columns.steps
    decodes = ~segments.is_prefill
    num_tokens = num_covering(segments.first_step[decodes], segments.last_step[decodes], len(steps))
    return "machine", np.unique(steps.machine[num_tokens != steps.num_decodes])


def transfers_are_offered_pulled_received(run: Ended) -> Finding:
    transfers = run.columns.transfers
    wrong = (transfers.pull_s < transfers.ready_s) | (transfers.received_s < transfers.pull_s)
    wrong |= transfers.source == transfers.destination
    order = np.lexsort((transfers.attempt, transfers.request_id))
    request_id, attempt = transfers.request_id[order], transfers.attempt[order]
    again = (request_id[1:] == request_id[:-1]) & (attempt[1:] == attempt[:-1])
    return "request", np.union1d(transfers.request_id[wrong], request_id[1:][again])


def no_decode_starts_before_its_kv_is_there(run: Ended) -> Finding:
    requests = run.columns.requests
    handed_over = (requests.attempts == 1) & (requests.prefill_on != requests.decode_on)
    wrong = requests.decode_start_s < requests.kv_received_s
    # Layer by layer it may be offered while its prefill runs, but the last layer is computed with the first token.
    wrong |= (requests.kv_ready_s < requests.prefill_start_s) | (requests.kv_received_s < requests.first_token_s)
    if not run.may_lose_facts:
        wrong |= ~np.isnan(requests.decode_start_s) & np.isnan(requests.kv_received_s)
    return "request", np.flatnonzero(handed_over & wrong)


def spans_of_a_handover_add_up(run: Ended) -> Finding:
    requests, ledger = run.columns.requests, run.ledger
    request_id = ledger.request_id
    gap_s = requests.second_token_s[request_id] - requests.first_token_s[request_id]
    right = np.abs(ledger.spans_s.sum(axis=0) - gap_s) <= GAP_TOLERANCE_S
    for span_s in ledger.spans_s:
        right &= span_s >= 0.0  # False for NaN
    if run.may_lose_facts:
        return "request", request_id[~right]
    listed = np.zeros(len(requests), bool)
    listed[request_id] = True
    ought = (requests.attempts == 1) & ~np.isnan(requests.kv_received_s) & ~np.isnan(requests.second_token_s)
    return "request", np.union1d(request_id[~right], np.flatnonzero(ought & ~listed))


INVARIANTS: tuple[tuple[str, Callable[[Ended], Finding]], ...] = (
    ("every request ends exactly once", every_request_ends_once),
    ("tokens out = tokens asked", tokens_out_are_tokens_asked),
    ("no token comes twice in one attempt", no_token_comes_twice_in_an_attempt),
    ("the times of a request are in order", times_of_a_request_are_in_order),
    ("steps of a machine take time and do not overlap", steps_of_a_machine_do_not_overlap),
    ("every decode of a pass gets one token", every_pass_gives_its_decodes_a_token),
    ("a transfer is offered, pulled, received, once", transfers_are_offered_pulled_received),
    ("no decode starts before its KV cache is there", no_decode_starts_before_its_kv_is_there),
    ("the spans of a hand-over add up to its gap", spans_of_a_handover_add_up),
)
