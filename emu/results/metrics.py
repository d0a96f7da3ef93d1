"""The metrics of a run, each derived from its facts."""

from typing import Any

import numpy as np

from emu.core.pools import Pool
from emu.results.columns import FAILED, FINISHED, Columns, PoolMoves
from emu.results.distribution import distribution
from emu.results.invariants import lost_tokens
from emu.results.run_record import Fidelity, RunRecord


def measured_requests(columns: Columns, warmup_s: float) -> np.ndarray:
    """Whose latencies count (bool, one entry a request): finished, arrived at `warmup_s` or later, no token lost.

    A request loses tokens with a dead machine, whose last facts never came: when it really ended is not known.
    """
    requests = columns.requests
    return (requests.status == FINISHED) & (requests.arrival_s >= warmup_s) & (lost_tokens(columns) == 0)


def submitted_requests(columns: Columns) -> np.ndarray:
    """Which requests of the workload reached the scheduler (bool): all of them, unless the run was interrupted."""
    return (columns.requests.attempts > 0) | (columns.requests.num_ends > 0)


def latencies(columns: Columns, warmup_s: float) -> dict[str, dict[str, float | None]]:
    """{mean, p50, p90, p99, max} of each latency over the `measured_requests`.

    ttft_s, e2e_s: arrival to first and to last token. tbt_s: every gap between consecutive tokens of one request. tpot_s:
    (last - first token) / (tokens - 1), of two tokens at least. queue_s: arrival to prefill start. second_token_gap_s,
    decode_start_gap_s: first token to second token, and to the start of the first decode step.
    """
    requests = columns.requests
    measured = measured_requests(columns, warmup_s)

    def between(start_s: np.ndarray, end_s: np.ndarray) -> dict[str, float | None]:
        return distribution(end_s[measured] - start_s[measured])

    several = measured & (requests.num_tokens_out > 1)
    decode_s = requests.last_token_s[several] - requests.first_token_s[several]
    return {
        "ttft_s": distribution(requests.ttft_s[measured]),
        "tbt_s": distribution(*columns.tokens.gaps(measured)),
        "tpot_s": distribution(decode_s / (requests.num_tokens_out[several] - 1)),
        "e2e_s": distribution(requests.e2e_s[measured]),
        "queue_s": between(requests.arrival_s, requests.prefill_start_s),
        "second_token_gap_s": between(requests.first_token_s, requests.second_token_s),
        "decode_start_gap_s": between(requests.first_token_s, requests.decode_start_s),
    }


def offered_rps(columns: Columns) -> float | None:
    """Arrivals over the seconds from the first to the last; None where these are 0: one request, or one burst."""
    arrival_s = columns.requests.arrival_s[submitted_requests(columns)]
    span_s = float(np.ptp(arrival_s)) if len(arrival_s) else 0.0
    return len(arrival_s) / span_s if span_s > 0 else None


def completed_rps(columns: Columns) -> float | None:
    """Finished requests over the seconds from the first arrival to the last finish; None if none finished."""
    requests = columns.requests
    finished = requests.status == FINISHED
    if not finished.any():
        return None
    span_s = float(np.nanmax(requests.last_token_s[finished], initial=0.0) - requests.arrival_s[0])
    return int(finished.sum()) / span_s if span_s > 0 else None


def request_counts(columns: Columns, num_skipped: int) -> dict[str, int]:
    """`num_skipped` of the workload were left out of the run: no machine could have held them."""
    requests = columns.requests
    return {
        "submitted": int(np.count_nonzero(submitted_requests(columns))),
        "finished": int(np.count_nonzero(requests.status == FINISHED)),
        "failed": int(np.count_nonzero(requests.status == FAILED)),
        "skipped": num_skipped,
    }


def token_counts(columns: Columns) -> dict[str, int]:
    """`prompt` counts the tokens of prompts prefilled at least once, `output` distinct tokens out, `recomputed` tokens that
    came out again, `lost` tokens of finished requests whose facts died with a machine."""
    requests = columns.requests
    prefilled = ~np.isnan(requests.prefill_start_s)
    return {
        "prompt": int(requests.prompt_tokens[prefilled].sum()),
        "output": int(requests.num_tokens_out.sum()),
        "recomputed": int(requests.num_recomputed.sum()),
        "lost": int(lost_tokens(columns).sum()),
    }


def kv_figures(record: RunRecord, columns: Columns) -> dict[str, Any]:
    """`bytes_modelled` counts completed transfers at full size, `blocks` the KV blocks a machine has, by role and hardware."""
    kv, transfers = record.kv, columns.transfers
    blocks: dict[str, dict[str, int]] = {}
    for machine in record.machines:
        blocks.setdefault(str(machine.role), {})[machine.hardware.name] = machine.num_kv_blocks
    return {
        "bytes_modelled": int(transfers.num_tokens.sum()) * record.model.kv_bytes_per_token,
        "bytes_moved": kv.bytes_moved,
        "payload_scale": kv.payload_scale,
        "transfers": len(transfers),
        "verified": kv.verified,
        "overruns": kv.overruns,
        **kv.incidents,
        "blocks": blocks,
    }


def pool_seconds(moves: PoolMoves, emulated_s: float) -> dict[str, float]:
    """Machine-seconds spent in each pool from the run's start to `emulated_s`."""
    order = np.lexsort((moves.time_s, moves.machine))
    machine, pool = moves.machine[order], moves.pool[order]
    since_s = np.minimum(moves.time_s[order], emulated_s)
    until_s = np.append(since_s[1:], emulated_s)
    until_s[:-1][machine[1:] != machine[:-1]] = emulated_s
    return {str(name): float((until_s - since_s)[pool == name].sum()) for name in Pool}


def lateness(fidelity: Fidelity | None) -> dict[str, dict[str, float | None]]:
    """How many messages were handled and wake-ups came, how many of them after their due time, and by how much each did."""
    nothing = np.empty(0)
    kinds = {
        "messages": nothing if fidelity is None else fidelity.message_late_s,
        "wakeups": nothing if fidelity is None else fidelity.wakeup_late_s,
    }
    return {
        kind: {"count": len(late_s), "late": int(np.count_nonzero(late_s > 0)), **distribution(late_s)}
        for kind, late_s in kinds.items()
    }
