"""The ledger of hand-overs: what passed between a request's first and its second token, span by span."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emu.core.cluster import Cluster
from emu.results.columns import Columns, Payloads, Transfers

SPANS = ("recovery", "hold", "reserve", "queue", "wire", "verify", "host", "activate", "wait", "step")
ROUNDING_S = 1e-9  # times are sums: what follows at once may seem to come earlier by less than this


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """One row a request that was handed over and has a second token, by request number.

    `spans_s[i]` holds the seconds of SPANS[i], one entry a row. They follow each other from the first token to the second;
    "the prefill" and all after it are those of the attempt that wrote the second token first:

    recovery  to the end of the prefill: 0 unless an earlier attempt wrote the first token and was lost, by eviction, death or
              in transfer. A prefill that goes on where that one ended writes the second token itself: nothing is left then
    hold      to its offer at the destination
    reserve   to its blocks being reserved there
    queue     what `wire` is not of the time to the flow's end by the model: the request for it is under way, or it waits for
              others on its links or shares with them
    wire      what the flow would have needed with both NICs to itself, their latency included; and what its last byte really
              came later than by the model
    verify    to the last byte being checked, as far as the model's end is over
    host      to the same, where a part of the bytes stood for all (`payload_scale` < 1): the time that this host took beyond
              the model, which says nothing about the emulated link. `wire` is then the model's alone, and `verify` 0
    activate  to the machine knowing that the KV cache is there
    wait      to the start of the step that wrote the second token: the running step, prompts before it, pauses
    step      that step

    A layer-wise hand-over begins before its prefill ends: these spans hold only what is left of it after that. The model of its
    flow goes by when the prefill ought to end, and a real one ends when it does: no span then begins before that.
    `transfer` and `payload` are its row in `Transfers` and, where bytes really moved, in `Payloads`, else -1.
    """

    request_id: np.ndarray  # int32
    is_layerwise: np.ndarray  # bool
    transfer: np.ndarray  # int32
    payload: np.ndarray  # int32
    spans_s: np.ndarray  # float64, (len(SPANS), number of rows)

    def __len__(self) -> int:
        return len(self.request_id)


def handover_ledger(columns: Columns, cluster: Cluster, real: Sequence[int] = (), payload_scale: float = 1.0) -> Ledger:
    """The ledger of a run of `cluster`, of which the machines `real` executed, and of whose KV bytes `payload_scale` moved.
    Requests of which a dead machine took facts along are left out."""
    segments, steps, transfers, payloads = columns.segments, columns.steps, columns.transfers, columns.payloads
    request_id, second, prefill, transfer, payload = _rows(columns)
    was_pulled, moved = transfer >= 0, np.flatnonzero(payload >= 0)
    ends_s = np.empty((len(SPANS), len(request_id)))  # when each span ends
    prefilled_s, ready_s, pull_s, queued_s, fetched_s, verified_s, host_s, received_s, start_s, written_s = ends_s

    prefill_step = segments.first_step[prefill]
    prefilled_s[:] = steps.end_s[prefill_step]
    step = segments.first_step[second] + 2 - segments.first_token[second]
    written_s[:] = steps.end_s[step]
    start_s[:] = np.where(segments.is_prefill[second], written_s, steps.starts_of(step))
    del second, prefill, step
    for at_s, told_s in ((ready_s, transfers.ready_s), (pull_s, transfers.pull_s), (received_s, transfers.received_s)):
        at_s[:] = prefilled_s
        at_s[was_pulled] = told_s[transfer[was_pulled]]

    fetched_s[:] = received_s
    fetched_s[moved] = payloads.modelled_s[payload[moved]]
    queued_s[:] = fetched_s
    # What is offered after its prefill has a control latency to go then.
    is_layerwise = was_pulled & (ready_s < prefilled_s + cluster.control_latency_s)
    late = was_pulled & ~is_layerwise
    queued_s[late] -= link_seconds(columns, cluster, transfer[late])
    asked_s, until_s = pull_s[is_layerwise] + cluster.control_latency_s, prefilled_s[is_layerwise]
    num_bytes, rate, latency_s = _flows(columns, cluster, transfer[is_layerwise])
    from_s = steps.starts_of(prefill_step[is_layerwise])
    end_s = end_alone_s(asked_s, num_bytes, rate, from_s, until_s, cluster.num_pieces)
    queued_s[is_layerwise] -= end_s + latency_s - np.maximum(asked_s, until_s)
    np.maximum(ready_s, prefilled_s, out=ready_s)
    np.maximum(pull_s, prefilled_s, out=pull_s)
    from_real = is_layerwise & np.isin(transfers.source[transfer], real)
    fetched_s[from_real] = np.maximum(fetched_s, prefilled_s)[from_real]
    queued_s[from_real] = np.clip(queued_s, pull_s, fetched_s)[from_real]

    host_s[:] = fetched_s
    host_s[moved] = np.maximum(fetched_s[moved], payloads.verified_s[payload[moved]])
    if payload_scale == 1:
        fetched_s[moved] = np.maximum(fetched_s[moved], payloads.fetched_s[payload[moved]])
        verified_s[:] = host_s
    else:
        verified_s[:] = fetched_s
    return Ledger(request_id, is_layerwise, transfer, payload, _spans(columns.requests.first_token_s[request_id], ends_s))


def _spans(start_s: np.ndarray, ends_s: np.ndarray) -> np.ndarray:
    """`ends_s` turned into the seconds from one end to the next, in place."""
    before_s = start_s
    for end_s in ends_s:  # rounding is evened out, anything else stays to be seen
        np.copyto(end_s, before_s, where=(end_s < before_s) & (end_s > before_s - ROUNDING_S))
        before_s = end_s
    for row in range(len(ends_s) - 1, 0, -1):
        ends_s[row] -= ends_s[row - 1]
    ends_s[0] -= start_s
    return ends_s


def end_alone_s(
    asked_s: np.ndarray,
    num_bytes: np.ndarray,
    bytes_per_s: np.ndarray,
    produced_from_s: np.ndarray,
    produced_until_s: np.ndarray,
    num_pieces: int,
) -> np.ndarray:
    """When the last byte of each flow leaves that has its link to itself: what `Network` answers, for arrays.

    See `FlowRequested` for the arguments; the flow is asked for at `asked_s`. Link latency is not included.
    """
    first_s = produced_from_s + (produced_until_s - produced_from_s) / num_pieces
    last_piece_s = num_bytes / num_pieces / bytes_per_s
    return np.maximum(np.maximum(asked_s, first_s) + num_bytes / bytes_per_s, produced_until_s + last_piece_s)


def link_seconds(columns: Columns, cluster: Cluster, rows: np.ndarray) -> np.ndarray:
    """How long the whole KV caches of these rows of `Transfers` are on links of their own by the model, latency included."""
    num_bytes, bytes_per_s, latency_s = _flows(columns, cluster, rows)
    return num_bytes / bytes_per_s + latency_s


def _flows(columns: Columns, cluster: Cluster, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bytes, bytes/s and latency of the flows of these rows of `Transfers`, each as if alone."""
    source, destination = columns.transfers.source[rows], columns.transfers.destination[rows]
    hardware = [machine.hardware for machine in cluster.machines]
    bytes_per_s = np.array([each.nic_bytes_per_s for each in hardware])
    latency_s = np.array([each.link_latency_s for each in hardware])
    return (
        columns.transfers.num_tokens[rows] * float(cluster.model.kv_bytes_per_token),
        np.minimum(bytes_per_s[source], bytes_per_s[destination]),
        np.maximum(latency_s[source], latency_s[destination]),
    )


def _rows(columns: Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The requests of the ledger, and of each: the segments with its second token and with the prefill of the same attempt,
    and the rows of that attempt in `Transfers` and `Payloads`, -1 where there is none. All int32."""
    requests, segments, transfers, payloads = columns.requests, columns.segments, columns.transfers, columns.payloads
    num_requests = len(requests)

    def rows_by_request(rows: np.ndarray, request_id: np.ndarray) -> np.ndarray:
        by_request = np.full(num_requests, -1, np.int32)
        by_request[request_id[rows]] = rows
        return by_request

    rows = np.flatnonzero(segments.first_token <= 2)
    step = segments.first_step[rows] + 2 - segments.first_token[rows]
    written = step <= segments.last_step[rows]
    rows, step = rows[written], step[written]
    is_first = columns.steps.end_s[step] == requests.second_token_s[segments.request_id[rows]]
    second = rows_by_request(rows[is_first], segments.request_id)
    attempt = np.where(second >= 0, segments.attempt[second], 0) if len(segments) else second
    del rows, step, written, is_first

    rows = np.flatnonzero(segments.is_prefill)
    rows = rows[segments.attempt[rows] == attempt[segments.request_id[rows]]]
    prefill = rows_by_request(rows, segments.request_id)
    is_there = (second >= 0) & (prefill >= 0) & (requests.first_token_s < requests.second_token_s)
    handed_over = np.zeros(num_requests, bool)
    handed_over[transfers.request_id[transfers.attempt <= attempt[transfers.request_id]]] = True
    request_id = np.flatnonzero(is_there & handed_over).astype(np.int32)
    second, prefill = second[request_id], prefill[request_id]

    def rows_of_attempt(table: Transfers | Payloads) -> np.ndarray:
        rows = np.flatnonzero(table.attempt == attempt[table.request_id])
        # A prefill that writes the second token has its hand-over after it.
        return np.where(segments.is_prefill[second], -1, rows_by_request(rows, table.request_id)[request_id])

    return request_id, second, prefill, rows_of_attempt(transfers), rows_of_attempt(payloads)
