"""Rows outside the window of a large CSV file: checked and counted by the thousand, where reading each would take minutes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np

from emu.workload.traces.csv_rows import CsvFormat
from emu.workload.traces.row import MAX_NUM_AT_ONCE
from emu.workload.traces.times import FixedUnit
from emu.workload.workload import MAX_NUM_TOKENS

MIN_FILE_BYTES = 4 << 20  # from which on loading pyarrow is worth its time
NUM_DECIMALS = 9
PER_UNIT = 10**NUM_DECIMALS
EPOCH_S = (datetime(1970, 1, 1) - datetime.min) // timedelta(seconds=1)
# pyarrow reads what is made of these as `csv_rows` does, or fails; 0x1F is left to `csv_rows`, as are quotes and anything odd.
SIMPLE = b"0123456789 .,:-+_/\nabcdefghijklmnopqrstuvwyzABCDEFGHIJKLMNOPQRSTUVWYZ"


@dataclass(frozen=True, slots=True)
class Inside:
    """Which rows of a block must be read one by one: its first and last, and those from `first` to `end` (excluded)."""

    num_rows: int
    first: int
    end: int
    num_requests_outside: int

    def indices(self) -> Iterator[int]:
        last = self.num_rows - 1
        if not self.first <= 0 < self.end:
            yield 0
        yield from range(self.first, self.end)
        if last and not self.first <= last < self.end:
            yield last


class Outside:
    """Finds the rows of a block that are sound and outside the window. Times are compared as whole numbers of 1e-9 units."""

    def __init__(self, trace_format: CsvFormat, header: str, first: Decimal, end: Decimal) -> None:
        self._format = trace_format
        self._names = trace_format.names_in(header)
        self._is_dated = trace_format.unit == FixedUnit("date")
        shift = EPOCH_S if self._is_dated else 0
        self._first, self._end = (_ticks(edge - shift) for edge in (first, end))

    def rows_inside(self, block: bytes) -> Inside | None:
        """None where the rows have to be read one by one: something about one of them is wrong, or merely unusual."""
        if block.translate(None, SIMPLE) or len(set(self._names)) < len(self._names):
            return None
        columns = self._columns(block)
        if columns is None:
            return None
        ticks, prompts, outputs, counts = columns
        num_rows = len(ticks)
        if num_rows != block.count(b"\n") + 1 or (ticks[1:] < ticks[:-1]).any():
            return None
        for values, most in ((prompts, MAX_NUM_TOKENS), (outputs, MAX_NUM_TOKENS), (counts, MAX_NUM_AT_ONCE)):
            if values.min() < 1 or values.max() > most:
                return None
        first, end = np.searchsorted(ticks, [self._first, self._end]).tolist()
        inside = Inside(num_rows, first, end, 0)
        is_outside = np.ones(num_rows, bool)
        is_outside[list(inside.indices())] = False
        return Inside(num_rows, first, end, int(counts[is_outside].sum()))

    def _columns(self, block: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        import pyarrow
        from pyarrow import csv

        fields = self._format.used_in_order
        if not self._is_dated:
            time_type = pyarrow.decimal128(38, NUM_DECIMALS)
        else:
            line = block[: block.find(b"\n")]
            has_zone = b"+" in line or b"Z" in line
            time_type = pyarrow.timestamp("ns", "UTC" if has_zone else None)
        types = {fields[0]: time_type} | dict.fromkeys(fields[1:], pyarrow.int64())
        try:
            table = csv.read_csv(
                pyarrow.BufferReader(block),
                csv.ReadOptions(use_threads=False, column_names=self._names, block_size=len(block) + 1),
                csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
                csv.ConvertOptions(column_types=types, include_columns=list(fields), null_values=[], check_utf8=False),
            )
        except pyarrow.ArrowException:
            return None
        table = table.combine_chunks()
        times, *rest = (column.chunk(0) for column in table.columns)
        if self._is_dated:
            ticks = times.cast(pyarrow.int64()).to_numpy()
        else:
            pairs = np.frombuffer(times.buffers()[1], "<i8")[2 * times.offset : 2 * (times.offset + len(times))].reshape(-1, 2)
            if pairs[:, 1].any() or (pairs[:, 0] < 0).any():  # more than 63 bits, or negative
                return None
            ticks = pairs[:, 0]
        prompts, outputs, *counts = (column.to_numpy() for column in rest)
        return ticks, prompts, outputs, counts[0] if counts else np.ones(len(ticks), np.int64)


def _ticks(time: Decimal) -> int:
    """The least whole number of ticks not before `time`, within 64 bits."""
    most = np.iinfo(np.int64).max
    return most if time > most // PER_UNIT else max(math.ceil(time * PER_UNIT), -most)
