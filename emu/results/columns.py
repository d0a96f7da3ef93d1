"""The facts of one run as tables: one numpy array a column, the arrays of one table all of one length.

Times are seconds since the run's start, NaN where something never happened. Machines, requests and steps are told by number:
a request's number is its row in `Requests`, a step's number its row in `Steps`.
"""

from dataclasses import dataclass

import numpy as np

from emu.results.token_times import Segments, TokenTimes

UNFINISHED, FINISHED, FAILED = 0, 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """One row a request of the workload, in order of arrival.

    `prefill_on` and `decode_on` are the machines of its last attempt (-1: never placed), `attempts` its number of starts and
    `evictions` how many of them were lost for want of blocks. `num_tokens_out` counts distinct output tokens and
    `num_recomputed` the emissions of tokens that were out already. `prefill_start_s` is the start of the first step that
    prefilled any of it, `decode_start_s` that of the first decode step. The three KV times are those of its last
    completed hand-over: offered by its source, its blocks reserved and the pull begun, received and verified.

    `num_ends` counts its End facts, `end_s` is the time of the last, `status` UNFINISHED, FINISHED or FAILED, and `cause` the
    number of a text in `causes` ('' is 0).
    """

    arrival_s: np.ndarray  # float64, like all times
    prompt_tokens: np.ndarray  # int64
    output_tokens: np.ndarray  # int64: asked for; where a real machine's answer stopped before, the tokens of that answer
    num_tokens_out: np.ndarray  # int32
    num_recomputed: np.ndarray  # int32
    prefill_on: np.ndarray  # int32
    decode_on: np.ndarray  # int32
    attempts: np.ndarray  # int32
    evictions: np.ndarray  # int32
    prefill_start_s: np.ndarray
    first_token_s: np.ndarray
    decode_start_s: np.ndarray
    second_token_s: np.ndarray
    last_token_s: np.ndarray
    kv_ready_s: np.ndarray
    kv_pull_s: np.ndarray
    kv_received_s: np.ndarray
    end_s: np.ndarray
    num_ends: np.ndarray  # int32
    status: np.ndarray  # int8
    cause: np.ndarray  # int32
    causes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def ttft_s(self) -> np.ndarray:
        """Arrival to first token."""
        return self.first_token_s - self.arrival_s

    @property
    def e2e_s(self) -> np.ndarray:
        """Arrival to last token."""
        return self.last_token_s - self.arrival_s


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """One row a batch that ran: `num_steps` consecutive steps from step `first_step`, machine by machine in order of time.

    `context_tokens` is what the decodes attend to in the first of these steps; each further step adds `num_decodes`.
    `prompt_tokens` holds the tokens of every prompt or chunk of one prefilled, `num_prefills` of them for each batch in turn,
    and `prompt_tokens_before` how many of the same prompt were prefilled in steps before.
    """

    machine: np.ndarray  # int32
    first_step: np.ndarray  # int32
    num_steps: np.ndarray  # int32
    start_s: np.ndarray
    num_decodes: np.ndarray  # int32
    context_tokens: np.ndarray  # int64
    num_paused: np.ndarray  # int32
    num_prefills: np.ndarray  # int32
    prefill_tokens: np.ndarray  # int64: summed over the prompts of the batch
    prompt_tokens: np.ndarray  # int32: one entry a prompt
    prompt_tokens_before: np.ndarray  # int32: likewise


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """One row a forward pass of any machine: machine by machine, and in order of time on each.

    Only `end_s` is stored. What belongs to the batch is spread over its steps, anew at each access.
    """

    end_s: np.ndarray
    batches: Batches

    def __len__(self) -> int:
        return len(self.end_s)

    @property
    def batch_end_s(self) -> np.ndarray:
        """When each batch ended: one entry a batch."""
        return self.end_s[self.batches.first_step + self.batches.num_steps - 1]

    def _spread(self, column: np.ndarray) -> np.ndarray:
        return np.repeat(column, self.batches.num_steps)

    @property
    def start_s(self) -> np.ndarray:
        start_s = np.roll(self.end_s, 1)  # the steps of a batch follow each other at once
        start_s[self.batches.first_step] = self.batches.start_s
        return start_s

    def starts_of(self, steps: np.ndarray) -> np.ndarray:
        """When each of these steps began: for few of all, or where memory for all is too much."""
        batches = self.batches
        batch = np.searchsorted(batches.first_step, steps, side="right") - 1
        return np.where(batches.first_step[batch] == steps, batches.start_s[batch], self.end_s[steps - 1])

    @property
    def machine(self) -> np.ndarray:
        return self._spread(self.batches.machine)

    @property
    def num_decodes(self) -> np.ndarray:
        return self._spread(self.batches.num_decodes)

    @property
    def num_paused(self) -> np.ndarray:
        return self._spread(self.batches.num_paused)

    @property
    def num_prefills(self) -> np.ndarray:
        return self._spread(self.batches.num_prefills)

    @property
    def prefill_tokens(self) -> np.ndarray:
        return self._spread(self.batches.prefill_tokens)

    @property
    def context_tokens(self) -> np.ndarray:
        steps_into_batch = np.arange(len(self), dtype=np.int64) - self._spread(self.batches.first_step)
        return self._spread(self.batches.context_tokens) + steps_into_batch * self.num_decodes


@dataclass(frozen=True, slots=True, eq=False)
class Transfers:
    """One row a completed hand-over, in order of `received_s`; see `Requests` for the three times."""

    request_id: np.ndarray  # int32
    attempt: np.ndarray  # int32
    source: np.ndarray  # int32
    destination: np.ndarray  # int32
    num_tokens: np.ndarray  # int32
    ready_s: np.ndarray
    pull_s: np.ndarray
    received_s: np.ndarray

    def __len__(self) -> int:
        return len(self.request_id)


@dataclass(frozen=True, slots=True, eq=False)
class Payloads:
    """One row a hand-over whose bytes were really moved and verified, in the order recorded; see `PayloadMoved`."""

    request_id: np.ndarray  # int32
    attempt: np.ndarray  # int32
    num_bytes: np.ndarray  # int64
    num_messages: np.ndarray  # int32
    start_s: np.ndarray
    modelled_s: np.ndarray
    fetched_s: np.ndarray
    verified_s: np.ndarray
    wire_s: np.ndarray
    verify_s: np.ndarray

    def __len__(self) -> int:
        return len(self.request_id)


@dataclass(frozen=True, slots=True, eq=False)
class PoolMoves:
    """From `time_s` on `machine` is in `pool` (prompt, token, mixed or dead), in order of time."""

    time_s: np.ndarray
    machine: np.ndarray  # int32
    pool: np.ndarray  # str

    def __len__(self) -> int:
        return len(self.time_s)


@dataclass(frozen=True, slots=True, eq=False)
class Requeues:
    """Attempts that were lost and started again: for want of blocks (`evicted`) or through a death, in order of time."""

    time_s: np.ndarray
    request_id: np.ndarray  # int32
    evicted: np.ndarray  # bool
    cause: np.ndarray  # str

    def __len__(self) -> int:
        return len(self.time_s)


@dataclass(frozen=True, slots=True, eq=False)
class Drops:
    """Stale messages that were dropped, in the order recorded; `message` is the name of its type."""

    time_s: np.ndarray
    request_id: np.ndarray  # int32
    attempt: np.ndarray  # int32
    message: np.ndarray  # str

    def __len__(self) -> int:
        return len(self.time_s)


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """One row a request that finished on a real machine, in order of request: what it wrote; see `facts.Answer`."""

    request_id: np.ndarray  # int32
    stopped: np.ndarray  # bool
    token_ids: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.request_id)


@dataclass(frozen=True, slots=True, eq=False)
class ProbeSteps:
    """One row a probe step of a real machine, in the order recorded; see `facts.ProbeStepRun`."""

    time_s: np.ndarray  # of its end
    machine: np.ndarray  # int32
    phase: np.ndarray  # str
    step_s: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Everything recorded of one run."""

    requests: Requests
    steps: Steps
    batches: Batches
    segments: Segments
    tokens: TokenTimes
    transfers: Transfers
    payloads: Payloads
    pool_moves: PoolMoves
    requeues: Requeues
    drops: Drops
    answers: Answers
    probe_steps: ProbeSteps
