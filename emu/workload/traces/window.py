"""Which rows of a trace are kept: cut exactly, in the digits of the file, into compact arrays."""

from array import array
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from emu.workload.memory import MANY_REQUESTS, require_memory
from emu.workload.traces.json_rows import kept_value
from emu.workload.traces.row import Row, Time


@dataclass(frozen=True, slots=True)
class Window:
    """From `start_s` to `start_s + duration_s` (excluded), each as the shortest decimal that stands for it."""

    start_s: float = 0.0
    duration_s: float = float("inf")

    def edges(self, origin: Time, per_s: int) -> tuple[Decimal, Decimal]:
        """First and end in the units of a file, of which `per_s` are a second and whose time 0 is `origin`."""
        start_s = Decimal(repr(self.start_s))
        first = origin + start_s * per_s
        return first, origin + (start_s + Decimal(repr(self.duration_s))) * per_s


class KeptRows:
    """The requests of a window, in the order of their arrival once `sort` was called."""

    def __init__(self, path: str, first: Decimal, per_s: int, columns: tuple[str, ...]) -> None:
        self._key = f"workload.path={path}"
        self._first = first
        self._per_s = per_s
        self._arrival_s = array("d")
        self._output_tokens = array("q")
        self._num_tokens = array("q")
        self._prompts: list[Any] = []
        self._columns: dict[str, list[Any]] = {name: [] for name in columns}
        self._check_at = MANY_REQUESTS

    def __len__(self) -> int:
        return len(self._arrival_s)

    def add(self, row: Row) -> None:
        """Raises Unexpected for a member that cannot be kept, WorkloadError where memory does not do."""
        members = row.members
        values = [kept_value(name, members.get(name)) for name in self._columns] if members is not None else []
        count = row.count
        arrival_s = float((row.time - self._first) / self._per_s)
        if count == 1:
            self._arrival_s.append(arrival_s)
            self._output_tokens.append(row.output_tokens)
        else:
            self._arrival_s.extend([arrival_s] * count)
            self._output_tokens.extend([row.output_tokens] * count)
        if type(row.prompt) is int:
            self._num_tokens.extend([row.prompt] * count)
        else:
            self._prompts.extend([row.prompt] * count)
        for column, value in zip(self._columns.values(), values, strict=False):
            column.extend([value] * count)
        if len(self) >= self._check_at:
            require_memory(self._key, len(self), "a shorter workload.duration_s")
            self._check_at = len(self) + MANY_REQUESTS

    def arrays(self, is_sorted: bool) -> tuple[np.ndarray, Any, np.ndarray, dict[str, tuple[Any, ...]]]:
        """Arrivals in seconds from the window's start, prompts, output tokens, and the columns kept that the file has."""
        arrival_s = np.array(self._arrival_s, np.float64)
        output_tokens = np.array(self._output_tokens, np.int64)
        prompts: Any = np.array(self._num_tokens, np.int64) if self._num_tokens else self._prompts
        columns = {name: values for name, values in self._columns.items() if any(map(_is_there, values))}
        if not is_sorted:
            order = np.argsort(arrival_s, kind="stable")
            arrival_s, output_tokens = arrival_s[order], output_tokens[order]
            prompts = prompts[order] if self._num_tokens else [prompts[index] for index in order]
            columns = {name: [values[index] for index in order] for name, values in columns.items()}
        return arrival_s, prompts, output_tokens, {name: tuple(values) for name, values in columns.items()}


def _is_there(value: Any) -> bool:
    return len(value) > 0 if isinstance(value, np.ndarray) else value is not None
