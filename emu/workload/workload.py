"""The requests of one run: when each arrives and how many tokens it reads and writes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import compress, repeat
from typing import Any

import numpy as np

from emu.core.setting import SettingError
from emu.workload.origin import TraceOrigin

MAX_NUM_TOKENS = 2**31 - 1


class WorkloadError(SettingError):
    """A workload that cannot be run: a wrong setting, a malformed trace, no requests. The text is for the user."""


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """Requests in order of arrival; the i-th entries of the arrays describe the i-th request.

    `arrival_s` (float64) is seconds from the run's start, never negative and never decreasing; `prompt_tokens` and
    `output_tokens` (int64) are at least 1, as is `predicted_output_tokens` (int64), the scheduler's guess of them, if there is
    one. `prompt_ids` are the token ids of each prompt (an int32 array of `prompt_tokens[i]` ids >= 0), where they are known.
    `num_skipped` further requests were left out, as no machine can hold them (`kept`).
    `columns` are further columns of a trace by name, sessions and prefix hashes say, which no run uses yet: an entry a request.
    `origin` is None where requests are drawn. Raises WorkloadError for anything else, and where there is no request.
    """

    name: str
    arrival_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    predicted_output_tokens: np.ndarray | None = None
    prompt_ids: tuple[np.ndarray, ...] | None = None
    num_skipped: int = 0
    columns: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    origin: TraceOrigin | None = None

    def __post_init__(self) -> None:
        lengths = ["prompt_tokens", "output_tokens"]
        if self.predicted_output_tokens is not None:
            lengths.append("predicted_output_tokens")
        for column, dtype in (("arrival_s", np.float64), *((column, np.int64) for column in lengths)):
            values = getattr(self, column)
            if not isinstance(values, np.ndarray) or values.dtype != dtype or values.shape != np.shape(self.arrival_s):
                raise WorkloadError(
                    f"workload {self.name}: {column} must be an array of {np.dtype(dtype)}, one entry a request"
                )
        if np.ndim(self.arrival_s) != 1 or not len(self):
            raise WorkloadError(f"workload {self.name}: no requests; expected at least one")
        self._check("arrival_s", np.isfinite(self.arrival_s) & (self.arrival_s >= 0), "a number of seconds >= 0")
        in_order = np.diff(self.arrival_s, prepend=0.0) >= 0
        self._check("arrival_s", in_order, "no earlier than the request before it")
        for column in lengths:
            values = getattr(self, column)
            self._check(column, (values >= 1) & (values <= MAX_NUM_TOKENS), f"from 1 to {MAX_NUM_TOKENS}")
        if self.prompt_ids is not None:
            self._check_prompt_ids(self.prompt_ids)
        for name, values in self.columns.items():
            if len(values) != len(self):
                raise WorkloadError(f"workload {self.name}: column {name} must have an entry for each request")

    def _check(self, column: str, valid: np.ndarray, expected: str) -> None:
        if not valid.all():
            index = int(np.argmin(valid))
            value = getattr(self, column)[index]
            raise WorkloadError(f"workload {self.name}: request {index}: {column}={value}; expected {expected}")

    def _check_prompt_ids(self, prompt_ids: tuple[np.ndarray, ...]) -> None:
        if len(prompt_ids) != len(self) or not all(isinstance(ids, np.ndarray) and ids.dtype == np.int32 for ids in prompt_ids):
            raise WorkloadError(f"workload {self.name}: prompt_ids must be an array of int32 for each request")
        for index, (ids, num_tokens) in enumerate(zip(prompt_ids, self.prompt_tokens.tolist(), strict=True)):
            if ids.shape != (num_tokens,):
                raise WorkloadError(
                    f"workload {self.name}: request {index}: {ids.size} prompt_ids; expected prompt_tokens={num_tokens} of them"
                )
            if ids.min() < 0:
                raise WorkloadError(f"workload {self.name}: request {index}: prompt id {ids.min()}; expected ids >= 0")

    def kept(self, rows: np.ndarray) -> "Workload":
        """Only these requests (bool, one entry a request). Raises WorkloadError where none is left."""
        prompt_ids = self.prompt_ids
        return replace(
            self,
            arrival_s=self.arrival_s[rows],
            prompt_tokens=self.prompt_tokens[rows],
            output_tokens=self.output_tokens[rows],
            predicted_output_tokens=None if self.predicted_output_tokens is None else self.predicted_output_tokens[rows],
            prompt_ids=None if prompt_ids is None else tuple(compress(prompt_ids, rows)),
            columns={name: tuple(compress(values, rows)) for name, values in self.columns.items()},
            num_skipped=self.num_skipped + int(np.count_nonzero(~rows)),
        )

    def __len__(self) -> int:
        return len(self.arrival_s)

    def rows(self) -> Iterator[tuple[float, int, int]]:
        """Arrival, prompt tokens and predicted output tokens (0: no prediction) of each request, in order."""
        predicted = repeat(0) if self.predicted_output_tokens is None else self.predicted_output_tokens.tolist()
        return zip(self.arrival_s.tolist(), self.prompt_tokens.tolist(), predicted, strict=False)

    @property
    def counted_from_s(self) -> float:
        """When cost and energy begin to count: at the first arrival of a trace whose start nobody chose, else at 0."""
        return 0.0 if self.origin is None or self.origin.is_start_given else float(self.arrival_s[0])

    @property
    def num_requests(self) -> int:
        return len(self)

    @property
    def total_prompt_tokens(self) -> int:
        return int(self.prompt_tokens.sum())

    @property
    def total_output_tokens(self) -> int:
        return int(self.output_tokens.sum())

    @property
    def arrival_span_s(self) -> float:
        """Seconds from the run's start to the last arrival, at least 1, so that one burst still has a finite rate."""
        return max(1.0, float(self.arrival_s[-1]))

    @property
    def mean_rate_rps(self) -> float:
        return self.num_requests / self.arrival_span_s

    @property
    def prompt_tokens_per_s(self) -> float:
        """Prompt tokens offered a second, on average: what prefill, and the hand-over of its KV cache, must sustain."""
        return self.total_prompt_tokens / self.arrival_span_s
