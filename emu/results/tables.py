"""From what a recorder has taken down to the tables of `Columns`."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from emu.core.facts import OutputWritten
from emu.results.columns import FAILED, FINISHED, UNFINISHED, Answers, Batches, Requests, Requeues, Steps, Transfers
from emu.results.machine_log import BATCH, PREFILL, MachineLog
from emu.results.request_log import END, PLACE, TRANSFER, RequestLog
from emu.results.token_times import Segments, TokenTimes
from emu.workload.workload import Workload


def event_columns(events: Sequence[tuple], types: Sequence[type]) -> list[np.ndarray]:
    """One array of each type from a list of equally long tuples."""
    return [np.array([event[i] for event in events], dtype) for i, dtype in enumerate(types)]


def _step_offsets(logs: Sequence[MachineLog]) -> np.ndarray:
    """The number of each machine's first step among all steps, and of one past the last."""
    return np.cumsum([0, *(len(log.step_ends_s) for log in logs)], dtype=np.int32)


def step_table(logs: Sequence[MachineLog]) -> Steps:
    offsets = _step_offsets(logs)
    tables = [BATCH.unpack(log.batches) for log in logs]
    batches = np.concatenate(tables)
    machine = np.repeat(np.arange(len(logs), dtype=np.int32), [len(table) for table in tables])
    first_step = batches["first_step"] + offsets[machine]
    prefills = [PREFILL.unpack(log.prefills) for log in logs]
    prompt_tokens, before = (np.concatenate([rows[name] for rows in prefills]) for name in ("num_tokens", "num_before"))
    batch_of_prompt = np.repeat(np.arange(len(machine)), batches["num_prefills"])
    return Steps(
        end_s=np.concatenate([np.asarray(log.step_ends_s) for log in logs]),
        batches=Batches(
            machine=machine,
            first_step=first_step,
            num_steps=np.diff(first_step, append=offsets[-1:]),
            **{
                name: np.ascontiguousarray(batches[name])
                for name in ("start_s", "num_decodes", "context_tokens", "num_paused", "num_prefills")
            },
            prefill_tokens=np.bincount(batch_of_prompt, prompt_tokens, len(machine)).astype(np.int64),
            prompt_tokens=prompt_tokens,
            prompt_tokens_before=before,
        ),
    )


def segment_table(logs: Sequence[MachineLog], steps: Steps) -> Segments:
    tables = [log.stretches() for log in logs]
    decodes = np.concatenate(tables)
    offset = np.repeat(_step_offsets(logs)[:-1], [len(table) for table in tables])
    del tables
    prefills, prefill_step = _prefills(logs, steps)
    is_last = prefills["num_left"] == 0  # the token comes out with the last chunk
    prefills, prefill_step = prefills[is_last], prefill_step[is_last]
    request_id = np.concatenate([prefills["request_id"], decodes["request_id"]])
    first_step = np.concatenate([prefill_step, decodes["first_step"] + offset])
    first_token = np.concatenate([prefills["num_generated"] + 1, decodes["first_token"]])
    order = np.lexsort((steps.end_s[first_step], first_token, request_id))
    return Segments(
        request_id=request_id[order],
        attempt=np.concatenate([prefills["attempt"], decodes["attempt"]])[order],
        first_step=first_step[order],
        last_step=np.concatenate([prefill_step, decodes["last_step"] + offset])[order],
        first_token=first_token[order],
        is_prefill=order < len(prefill_step),
    )


def prefill_starts_s(logs: Sequence[MachineLog], steps: Steps, num_requests: int) -> np.ndarray:
    """When each request's first step began that prefilled any of it, NaN where there was none."""
    prefills, step = _prefills(logs, steps)
    return _earliest(prefills["request_id"], steps.start_s[step], num_requests)


def _prefills(logs: Sequence[MachineLog], steps: Steps) -> tuple[np.ndarray, np.ndarray]:
    """The rows of all prefills, and the step of each."""
    prefills = np.concatenate([PREFILL.unpack(log.prefills) for log in logs])
    return prefills, np.repeat(steps.batches.first_step, steps.batches.num_prefills)


def _earliest(request_id: np.ndarray, times_s: np.ndarray, num_requests: int) -> np.ndarray:
    column = np.full(num_requests, np.nan)
    np.fmin.at(column, request_id, times_s)
    return column


def transfer_table(log: RequestLog) -> Transfers:
    transfers = TRANSFER.unpack(log.transfers)
    transfers = transfers[np.argsort(transfers["received_s"], kind="stable")]
    return Transfers(**{name: np.ascontiguousarray(transfers[name]) for name in transfers.dtype.names or ()})


def request_table(
    workload: Workload,
    log: RequestLog,
    steps: Steps,
    segments: Segments,
    tokens: TokenTimes,
    transfers: Transfers,
    requeues: Requeues,
    prefill_start_s: np.ndarray,
) -> Requests:
    num_requests = len(workload)

    def last(request_id: np.ndarray, values: np.ndarray, nothing: float, dtype: type) -> np.ndarray:
        column: np.ndarray = np.full(num_requests, nothing, dtype)
        column[request_id] = values  # of several the last one stays
        return column

    decodes = ~segments.is_prefill
    places, ends = PLACE.unpack(log.places), END.unpack(log.ends)
    placed, ended, handed_over = places["request_id"], ends["request_id"], transfers.request_id
    return Requests(
        arrival_s=workload.arrival_s,
        prompt_tokens=workload.prompt_tokens,
        output_tokens=workload.output_tokens,
        num_tokens_out=tokens.num_out,
        num_recomputed=tokens.num_recomputed,
        prefill_on=last(placed, places["prefill_on"], -1, np.int32),
        decode_on=last(placed, places["decode_on"], -1, np.int32),
        attempts=last(placed, places["attempt"], 0, np.int32),
        evictions=np.bincount(requeues.request_id[requeues.evicted], minlength=num_requests).astype(np.int32),
        prefill_start_s=prefill_start_s,
        first_token_s=tokens.first_s,
        decode_start_s=_earliest(segments.request_id[decodes], steps.start_s[segments.first_step[decodes]], num_requests),
        second_token_s=tokens.second_s,
        last_token_s=tokens.last_s,
        kv_ready_s=last(handed_over, transfers.ready_s, np.nan, float),
        kv_pull_s=last(handed_over, transfers.pull_s, np.nan, float),
        kv_received_s=last(handed_over, transfers.received_s, np.nan, float),
        end_s=last(ended, ends["end_s"], np.nan, float),
        num_ends=np.bincount(ended, minlength=num_requests).astype(np.int32),
        status=last(ended, np.where(ends["cause"] == 0, FINISHED, FAILED), UNFINISHED, np.int8),
        cause=last(ended, ends["cause"], 0, np.int32),
        causes=log.causes,
    )


def answer_table(answers: Iterable[OutputWritten], requests: Requests) -> Answers:
    """Those with which their requests finished: not of an attempt that was declared lost before its end was heard of."""

    def is_last(answer: OutputWritten) -> bool:
        request_id = answer.request_id
        return answer.attempt == requests.attempts[request_id] and requests.status[request_id] == FINISHED

    last = sorted(filter(is_last, answers))
    request_id, stopped = event_columns([(answer.request_id, answer.stopped) for answer in last], (np.int32, bool))
    return Answers(request_id, stopped, tuple([answer.token_ids for answer in last]))


def asked_as_answered(requests: Requests, answers: Answers) -> Requests:
    """The same, but that nobody asks an answer for more tokens than it had when it stopped of itself."""
    num_tokens = np.array([len(token_ids) for token_ids in answers.token_ids], np.int64)
    output_tokens = requests.output_tokens.copy()
    output_tokens[answers.request_id[answers.stopped]] = num_tokens[answers.stopped]
    return replace(requests, output_tokens=output_tokens)
