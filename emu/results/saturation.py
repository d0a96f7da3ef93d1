"""Whether the emulated cluster keeps up with its load."""

import numpy as np

from emu.results.columns import FAILED, FINISHED, Columns, Requests
from emu.results.failures import was_refused

NUM_SAMPLES = 101  # of the waiting work, over the second half of the arrivals


def is_saturated(columns: Columns, limit_s: float) -> bool:
    """Whether the waiting work exceeds `limit_s` at the last arrival, having grown over the second half of the arrivals.

    Growth is a positive slope of the least-squares line through the waiting work over that half.
    """
    arrival_s = columns.requests.arrival_s
    times_s = np.linspace((arrival_s[0] + arrival_s[-1]) / 2, arrival_s[-1], NUM_SAMPLES)
    work_s = waiting_work_s(columns, times_s)
    is_burst = arrival_s[0] == arrival_s[-1]  # there is no half over which to grow
    grows = is_burst or (times_s - times_s.mean()) @ work_s > 0  # the sign of the slope
    return bool(work_s[-1] > limit_s and grows)


def waiting_work_s(columns: Columns, times_s: np.ndarray) -> np.ndarray:
    """Seconds of work waiting at each of `times_s` (float64, same shape): prompts queued plus hand-overs held up.

    Prompts: the tokens of the requests that have arrived and neither begun their prefill nor ended, over the rate at which
    the run worked such a queue off. That rate is all prompt tokens prefilled, over the time during which any was queued: the
    speed of the prefill machines where they are what is short, and less where blocks are. Requests that were refused are no
    work.

    Hand-overs: the age of the oldest one that is offered and waits for blocks at its destination, which is how far the
    token machines are behind. A request that was unfinished at the end before it could start to decode waited likewise.
    """
    return _queued_prompts_s(columns.requests, times_s) + _oldest_hand_over_s(columns, times_s)


def _queued_prompts_s(requests: Requests, times_s: np.ndarray) -> np.ndarray:
    leaves_s = np.fmin(requests.prefill_start_s, requests.end_s)  # NaN where it is still there
    leaves_s = np.where(was_refused(requests), requests.arrival_s, leaves_s)
    order = np.argsort(leaves_s)  # NaN last
    leaves_s = np.where(np.isnan(leaves_s), np.inf, leaves_s)[order]
    changes_s = np.sort(np.concatenate([requests.arrival_s, leaves_s[np.isfinite(leaves_s)]]))
    one_each = np.ones(len(requests))
    num_queued = _total_until(changes_s, requests.arrival_s, one_each) - _total_until(changes_s, leaves_s, one_each)
    queued_s = np.diff(changes_s)[num_queued[:-1] > 0].sum()
    num_tokens = requests.prompt_tokens[~np.isnan(requests.prefill_start_s)].sum()
    if not queued_s or not num_tokens:
        return np.zeros_like(times_s)
    arrived = _total_until(times_s, requests.arrival_s, requests.prompt_tokens)
    left = _total_until(times_s, leaves_s, requests.prompt_tokens[order])
    return (arrived - left) * (queued_s / num_tokens)


def _total_until(times_s: np.ndarray, sorted_s: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """The sum of the `amounts` at `sorted_s` <= each of `times_s`."""
    return np.append(0, np.cumsum(amounts))[np.searchsorted(sorted_s, times_s, side="right")]


def _oldest_hand_over_s(columns: Columns, times_s: np.ndarray) -> np.ndarray:
    requests, transfers = columns.requests, columns.transfers
    # No fact tells of one that was never pulled, or failed for want of memory to decode: it waited from the first token to
    # the end of its request.
    stuck = (requests.status != FINISHED) & (requests.prefill_on != requests.decode_on) & np.isnan(requests.kv_received_s)
    stuck |= (requests.status == FAILED) & np.isnan(requests.decode_start_s)
    stuck &= (requests.num_tokens_out > 0) & ~was_refused(requests)
    until_s = np.where(np.isnan(requests.end_s), np.inf, requests.end_s)
    offered_s = np.concatenate([transfers.ready_s, requests.first_token_s[stuck]])
    taken_s = np.concatenate([transfers.pull_s, until_s[stuck]])
    waited = taken_s > offered_s
    offered_s, taken_s = offered_s[waited], taken_s[waited]
    ages_s = np.zeros_like(times_s)
    for i, now_s in enumerate(times_s):
        waiting_since_s = offered_s[(offered_s <= now_s) & (now_s < taken_s)]
        if len(waiting_since_s):
            ages_s[i] = now_s - waiting_since_s.min()
    return ages_s
