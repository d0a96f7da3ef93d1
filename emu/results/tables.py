"""From what a recorder has taken down to the tables of `Columns`."""

from array import array
from collections.abc import Sequence

import numpy as np

from emu.results.columns import FAILED, FINISHED, UNFINISHED, Batches, Requests, Requeues, Steps, Transfers
from emu.results.machine_log import MachineLog
from emu.results.request_log import RequestLog
from emu.results.token_times import Segments, TokenTimes
from emu.workload.workload import Workload


def rows(flat: array, width: int) -> np.ndarray:
    """The flat rows as an array of shape (number of rows, width)."""
    return np.asarray(flat).reshape(-1, width)


def event_columns(events: Sequence[tuple], types: Sequence[type]) -> list[np.ndarray]:
    """One array of each type from a list of equally long tuples."""
    return [np.array([event[i] for event in events], dtype) for i, dtype in enumerate(types)]


def _gathered(logs: Sequence[MachineLog], name: str, width: int) -> list[np.ndarray]:
    """The columns of the flat rows called `name`, all machines one after the other."""
    tables = [rows(getattr(log, name), width) for log in logs]
    return [np.concatenate([table[:, i] for table in tables]) for i in range(width)]


def _step_offsets(logs: Sequence[MachineLog]) -> np.ndarray:
    """The number of each machine's first step among all steps, and of one past the last."""
    return np.cumsum([0, *(len(log.step_ends_s) for log in logs)], dtype=np.int32)


def step_table(logs: Sequence[MachineLog]) -> Steps:
    offsets = _step_offsets(logs)
    first_step, num_decodes, context_tokens, num_paused, num_prefills = _gathered(logs, "batches", 5)
    machine = np.repeat(np.arange(len(logs), dtype=np.int32), [len(log.batch_starts_s) for log in logs])
    first_step += offsets[machine]
    prompt_tokens = np.concatenate([rows(log.prefills, 4)[:, 2] for log in logs])
    batch_of_prompt = np.repeat(np.arange(len(machine)), num_prefills)
    return Steps(
        end_s=np.concatenate([np.asarray(log.step_ends_s) for log in logs]),
        batches=Batches(
            machine=machine,
            first_step=first_step,
            num_steps=np.diff(first_step, append=offsets[-1:]),
            start_s=np.concatenate([np.asarray(log.batch_starts_s) for log in logs]),
            num_decodes=num_decodes,
            context_tokens=context_tokens,
            num_paused=num_paused,
            num_prefills=num_prefills,
            prefill_tokens=np.bincount(batch_of_prompt, prompt_tokens, len(machine)).astype(np.int32),
            prompt_tokens=prompt_tokens,
        ),
    )


def segment_table(logs: Sequence[MachineLog], steps: Steps) -> Segments:
    request_id, attempt, first_step, last_step, first_token = _gathered(logs, "decodes", 5)
    offset = np.repeat(_step_offsets(logs)[:-1], [len(log.decodes) // 5 for log in logs])
    prefill_request_id, prefill_attempt, _, num_generated = _gathered(logs, "prefills", 4)
    prefill_step = np.repeat(steps.batches.first_step, steps.batches.num_prefills)
    request_id = np.concatenate([prefill_request_id, request_id])
    first_step = np.concatenate([prefill_step, first_step + offset])
    first_token = np.concatenate([num_generated + 1, first_token])
    order = np.lexsort((steps.end_s[first_step], first_token, request_id))
    return Segments(
        request_id=request_id[order],
        attempt=np.concatenate([prefill_attempt, attempt])[order],
        first_step=first_step[order],
        last_step=np.concatenate([prefill_step, last_step + offset])[order],
        first_token=first_token[order],
        is_prefill=order < len(prefill_step),
    )


def transfer_table(log: RequestLog) -> Transfers:
    facts, times_s = rows(log.transfers, 5), rows(log.transfer_times_s, 3)
    order = np.argsort(times_s[:, 2], kind="stable")
    return Transfers(*(column[order] for column in facts.T), *(column[order] for column in times_s.T))


def request_table(
    workload: Workload,
    log: RequestLog,
    steps: Steps,
    segments: Segments,
    tokens: TokenTimes,
    transfers: Transfers,
    requeues: Requeues,
) -> Requests:
    num_requests = len(workload)

    def last(request_id: np.ndarray, values: np.ndarray, nothing: float, dtype: type) -> np.ndarray:
        column = np.full(num_requests, nothing, dtype)
        column[request_id] = values  # of several the last one stays
        return column

    def earliest_start_s(is_prefill: bool) -> np.ndarray:
        chosen = segments.is_prefill == is_prefill
        column = np.full(num_requests, np.nan)
        np.fmin.at(column, segments.request_id[chosen], steps.start_s[segments.first_step[chosen]])
        return column

    placed, attempt, prefill_on, decode_on = rows(log.places, 4).T
    handed_over = transfers.request_id
    ended, cause = rows(log.ends, 2).T
    return Requests(
        arrival_s=workload.arrival_s,
        prompt_tokens=workload.prompt_tokens,
        output_tokens=workload.output_tokens,
        num_tokens_out=tokens.num_out,
        num_recomputed=tokens.num_recomputed,
        prefill_on=last(placed, prefill_on, -1, np.int32),
        decode_on=last(placed, decode_on, -1, np.int32),
        attempts=last(placed, attempt, 0, np.int32),
        evictions=np.bincount(requeues.request_id[requeues.evicted], minlength=num_requests).astype(np.int32),
        prefill_start_s=earliest_start_s(is_prefill=True),
        first_token_s=tokens.first_s,
        decode_start_s=earliest_start_s(is_prefill=False),
        second_token_s=tokens.second_s,
        last_token_s=tokens.last_s,
        kv_ready_s=last(handed_over, transfers.ready_s, np.nan, float),
        kv_pull_s=last(handed_over, transfers.pull_s, np.nan, float),
        kv_received_s=last(handed_over, transfers.received_s, np.nan, float),
        end_s=last(ended, np.asarray(log.end_times_s), np.nan, float),
        num_ends=np.bincount(ended, minlength=num_requests).astype(np.int32),
        status=last(ended, np.where(cause == 0, FINISHED, FAILED), UNFINISHED, np.int8),
        cause=last(ended, cause, 0, np.int32),
        causes=log.causes,
    )
