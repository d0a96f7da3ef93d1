"""Whether the emulated cluster keeps up with its load."""

from collections.abc import Sequence

import numpy as np

from emu.results.columns import FINISHED, Columns

NUM_SAMPLES = 101  # of the waiting work, over the second half of the arrivals


def is_saturated(columns: Columns, prefill_machines: Sequence[int], limit_s: float) -> bool:
    """Whether the waiting work exceeds `limit_s` at the last arrival, having grown over the second half of the arrivals.

    Growth is a positive slope of the least-squares line through the waiting work over that half.
    """
    arrival_s = columns.requests.arrival_s
    first_s, last_s = float(arrival_s[0]), float(arrival_s[-1])
    if first_s == last_s:
        return bool(waiting_work_s(columns, prefill_machines, np.array([last_s]))[0] > limit_s)
    times_s = np.linspace((first_s + last_s) / 2, last_s, NUM_SAMPLES)
    work_s = waiting_work_s(columns, prefill_machines, times_s)
    grows = (times_s - times_s.mean()) @ work_s > 0  # the sign of the slope
    return bool(work_s[-1] > limit_s and grows)


def waiting_work_s(columns: Columns, prefill_machines: Sequence[int], times_s: np.ndarray) -> np.ndarray:
    """Seconds of work waiting at each of `times_s` (float64, same shape): prompts queued plus hand-overs held up.

    Prompts: the tokens of the requests that have arrived and neither begun their prefill nor ended, over the rate at which
    `prefill_machines` work them off together. Their rate is the number of those not dead at that time x the prompt tokens a
    second that a machine of the run prefilled in steps with prompts (0 s if none ever was).

    Hand-overs: the age of the oldest one that is offered and waits for blocks at its destination, which is how far the
    token machines are behind.
    """
    return _queued_prompts_s(columns, prefill_machines, times_s) + _oldest_hand_over_s(columns, times_s)


def _queued_prompts_s(columns: Columns, prefill_machines: Sequence[int], times_s: np.ndarray) -> np.ndarray:
    requests, batches, moves = columns.requests, columns.batches, columns.pool_moves
    has_prompts = batches.num_prefills > 0
    first_step = batches.first_step[has_prompts]
    busy_s = (columns.steps.end_s[first_step] - columns.steps.start_s[first_step]).sum()
    if not busy_s:
        return np.zeros_like(times_s)
    tokens_per_s = batches.prefill_tokens.sum() / busy_s
    died_s = np.sort(moves.time_s[(moves.pool == "dead") & np.isin(moves.machine, prefill_machines)])
    num_alive = np.maximum(1, len(prefill_machines) - np.searchsorted(died_s, times_s, side="right"))
    leaves_s = np.fmin(requests.prefill_start_s, requests.end_s)  # NaN, still there, sorts last
    order = np.argsort(leaves_s)
    arrived = _total_until(times_s, requests.arrival_s, requests.prompt_tokens)
    left = _total_until(times_s, leaves_s[order], requests.prompt_tokens[order])
    return (arrived - left) / (tokens_per_s * num_alive)


def _total_until(times_s: np.ndarray, sorted_s: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """The sum of the `amounts` at `sorted_s` <= each of `times_s`."""
    return np.append(0, np.cumsum(amounts))[np.searchsorted(sorted_s, times_s, side="right")]


def _oldest_hand_over_s(columns: Columns, times_s: np.ndarray) -> np.ndarray:
    requests, transfers = columns.requests, columns.transfers
    # No fact tells of one that was never pulled: it waited from the first token to the end of its request.
    stuck = (requests.status != FINISHED) & (requests.prefill_on != requests.decode_on)
    stuck &= (requests.num_tokens_out > 0) & np.isnan(requests.kv_received_s)
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
