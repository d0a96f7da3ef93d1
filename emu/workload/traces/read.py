"""Read a trace: every row checked, the rows of the window kept."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import localcontext
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from emu.workload.memory import GenerationProgress
from emu.workload.traces.csv_rows import CsvFormat, RowParser
from emu.workload.traces.file import TraceFile
from emu.workload.traces.formats import TraceFormat, recognise, shown, shown_name
from emu.workload.traces.lines import BadLine, line_blocks, lines_of
from emu.workload.traces.outside import MIN_FILE_BYTES, Outside
from emu.workload.traces.row import MALFORMED, MAX_NUM_AT_ONCE, Row, Time, Unexpected
from emu.workload.traces.times import TimeBase, check_resolution, time_base
from emu.workload.traces.window import KeptRows, Window
from emu.workload.workload import MAX_NUM_TOKENS, WorkloadError

NUM_HEAD_ROWS = 1_000  # by which the unit of time is judged, or fewer where they are long
MAX_HEAD_CHARS = 8 << 20
NUM_BAD_SHOWN = 3
NUM_DIGITS = 100  # of sums and quotients of times: more than any file has


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """How a trace is read: the configuration's keys of the same names."""

    format: str = "auto"
    time_unit: str = "auto"
    zero_outputs: str = "refuse"
    unsorted: str = "refuse"


@dataclass(frozen=True, slots=True, eq=False)
class TraceRows:
    """The window of a trace, in order of arrival, and facts of the whole file. Arrays have an entry a request.

    `arrival_s` is seconds from the window's start. `prompts` is an array of their numbers of tokens, or a list of their token
    ids (int32 arrays) or of their texts. `columns` are further members of the rows, by name, that no run uses yet.
    """

    arrival_s: np.ndarray
    prompts: Any
    output_tokens: np.ndarray
    columns: dict[str, tuple[Any, ...]]
    format: TraceFormat
    time_unit: str
    sha256: str
    requests_in_file: int
    first_s: float
    last_s: float
    unused_columns: tuple[str, ...]
    skipped: int
    reordered: int


def read_trace(path: Path, window: Window | None = None, settings: ReadSettings | None = None) -> TraceRows:
    """Stream the whole file and keep the rows of `window`, all by default. Blank lines mean nothing.

    Raises WorkloadError for a file that cannot be read, an unknown header, an uncertain unit, no rows, and, by the first three
    lines, for malformed rows, times before that of the row above and token counts below 1; the last two as the settings say.
    """
    settings = settings or ReadSettings()
    with localcontext(prec=NUM_DIGITS):
        return _Reading(path, window or Window(), settings).run()


@dataclass
class _Reading:
    path: Path
    window: Window
    settings: ReadSettings
    file: TraceFile = field(init=False)
    format: TraceFormat = field(init=False)
    first_line: str = ""
    outside: Outside | None = None
    unused: set[str] = field(default_factory=set)
    bad: list[tuple[int, str]] = field(default_factory=list)
    num_bad: int = 0
    num_requests: int = 0
    num_skipped: int = 0
    num_late: int = 0

    def run(self) -> TraceRows:
        rows = self._rows()
        head = list(self._head(rows))
        if not head:
            self._raise_bad_rows()
            raise WorkloadError(f"workload.path={self.path}: a header and no rows; expected at least one request")
        time_field, settings = self.format.fields[0], self.settings
        base = time_base(self.path, time_field, self.format.unit, settings.time_unit, [row.time for _, _, row in head])
        origin = self._origin(base, head[0][2].time)
        kept, earliest, latest = self._keep(chain(head, rows), base, origin)
        self._raise_bad_rows()
        first_s, last_s = (float((time - origin) / base.per_s) for time in (earliest, latest))
        check_resolution(f"workload.path={self.path}", time_field, last_s)
        if not len(kept):
            self._raise_empty_window(first_s, last_s)
        return TraceRows(
            *kept.arrays(is_sorted=not self.num_late),
            format=self.format,
            time_unit=base.unit,
            sha256=self.file.sha256,
            requests_in_file=self.num_requests,
            first_s=first_s,
            last_s=last_s,
            unused_columns=tuple(sorted(map(shown_name, self.unused))),
            skipped=self.num_skipped,
            reordered=self.num_late,
        )

    def _keep(self, rows: Iterator[tuple[int, str, Row]], base: TimeBase, origin: Time) -> tuple[KeptRows, Time, Time]:
        """Keep the window's rows; also return the earliest and the latest time of the file."""
        first, end = self.window.edges(origin, base.per_s)
        kept = KeptRows(str(self.path), first, base.per_s, self.format.kept)
        if self.settings.unsorted == "refuse" and self.file.size_bytes >= MIN_FILE_BYTES and isinstance(self.format, CsvFormat):
            self.outside = Outside(self.format, self.first_line, first, end)
        time_field = self.format.fields[0]
        sorts, skips = self.settings.unsorted == "sort", self.settings.zero_outputs == "skip"
        earliest = latest = previous = origin
        is_first = True
        for line_num, line, row in rows:
            time = row.time
            if is_first:
                earliest = latest = previous = time
                is_first = False
            try:
                if base.needs_whole:
                    base.check(time_field, time)
                is_late, previous = time < (latest if sorts else previous), time
                if is_late and not sorts:
                    raise Unexpected(f"{time_field} to be no earlier than in the row above, or workload.unsorted=sort")
                if is_late:
                    self.num_late += 1
                    earliest = min(earliest, time)
                else:
                    latest = time
                if not row.output_tokens and skips:
                    self.num_skipped += 1
                    continue
                self._check_counts(row)
                if first <= time < end:
                    kept.add(row)
                self.num_requests += row.count
            except Unexpected as error:
                self._note(line_num, line, str(error))
        return kept, earliest, latest

    def _check_counts(self, row: Row) -> None:
        _, prompt_field, output_field = self.format.fields
        if not 0 < row.output_tokens <= MAX_NUM_TOKENS:
            skip = ", or workload.zero_outputs=skip" if not row.output_tokens else ""
            raise Unexpected(f"{output_field} to be from 1 to {MAX_NUM_TOKENS}{skip}")
        if type(row.prompt) is int and not 0 < row.prompt <= MAX_NUM_TOKENS:
            raise Unexpected(f"{prompt_field} to be from 1 to {MAX_NUM_TOKENS}")
        if not 0 < row.count <= MAX_NUM_AT_ONCE:
            raise Unexpected(f"{self.format.count_field} to be from 1 to {MAX_NUM_AT_ONCE}")

    def _origin(self, base: TimeBase, first: Time) -> Time:
        """The time that counts as 0: the earliest of absolute times."""
        if not base.is_absolute or self.settings.unsorted != "sort":
            return first if base.is_absolute else 0
        other = _Reading(self.path, self.window, self.settings)
        return min(row.time for _, _, row in other._rows())

    def _rows(self) -> Iterator[tuple[int, str, Row]]:
        """Each row with its line number and text; without bad ones, which are noted, and those that `outside` counts."""
        self.file = TraceFile(self.path)
        parse = None
        for line_num, line in self._numbered_lines():
            if parse is None:
                if isinstance(line, str) and not line.strip(" \t"):
                    continue
                parse = self._parser(line_num, line)
                if self.format.has_header:
                    continue
            if isinstance(line, BadLine):
                self._note(line_num, line.text, line.problem)
                continue
            try:
                yield line_num, line, parse(line)
            except Unexpected as error:
                self._note(line_num, line, str(error))
            except MALFORMED as error:
                if line.strip(" \t"):
                    lacks = f"{error.args[0]}, as in " if type(error) is KeyError else "a row like "
                    self._note(line_num, line, f"{lacks}{self.format.example}")
        if parse is None:
            raise WorkloadError(f"workload.path={self.path}: empty file; expected a trace")

    def _parser(self, line_num: int, first_line: str | BadLine) -> RowParser:
        if isinstance(first_line, BadLine):
            raise WorkloadError(
                f"workload.path={self.path}, line {line_num}: {shown(first_line.text)}; expected {first_line.problem}"
            )
        self.format = recognise(self.path, self.settings.format, line_num, first_line)
        self.first_line = first_line
        return self.format.line_parser(first_line, self.unused)

    def _numbered_lines(self) -> Iterator[tuple[int, str | BadLine]]:
        line_num, progress = 0, GenerationProgress()
        for block in line_blocks(self.file):
            inside = self.outside.rows_inside(block) if self.outside else None
            if inside is None:
                for line in lines_of(block):
                    line_num += 1
                    yield line_num, line
            else:
                lines = block.split(b"\n")
                self.num_requests += inside.num_requests_outside
                for index in inside.indices():
                    yield line_num + index + 1, lines[index].decode()
                line_num += len(lines)
            if progress.is_due():
                share = self.file.num_bytes_read / max(1, self.file.size_bytes)
                progress.say(f"reading {self.path}: {line_num:,} lines, {share:.0%} of the file")

    def _head(self, rows: Iterator[tuple[int, str, Row]]) -> Iterator[tuple[int, str, Row]]:
        num_chars = 0
        for numbered in islice(rows, NUM_HEAD_ROWS):
            yield numbered
            num_chars += len(numbered[1])
            if num_chars > MAX_HEAD_CHARS:
                return

    def _note(self, line_num: int, line: str, expected: str) -> None:
        self.num_bad += 1
        # Not in the order of lines: the head is parsed before its order is checked.
        if len(self.bad) < NUM_BAD_SHOWN or line_num < self.bad[-1][0]:
            self.bad.append((line_num, f"line {line_num}: {shown(line)}; expected {expected}"))
            self.bad = sorted(self.bad)[:NUM_BAD_SHOWN]

    def _raise_bad_rows(self) -> None:
        if self.bad:
            more = self.num_bad - len(self.bad)
            also = f"; and {more:,} more bad row{'s' if more > 1 else ''}" if more else ""
            raise WorkloadError(f"workload.path={self.path}, {'; '.join(text for _, text in self.bad)}{also}")

    def _raise_empty_window(self, first_s: float, last_s: float) -> None:
        raise WorkloadError(
            f"workload.path={self.path}: no request arrives from workload.start_s={self.window.start_s:g} for "
            f"workload.duration_s={self.window.duration_s:g}; the trace's {self.num_requests} requests arrive from "
            f"{first_s:g} to {last_s:g} s"
        )
