"""How traces are written, and how one is read: a line of text becomes a time, a prompt or its length, and an output length."""

import csv
import json
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from emu.workload.workload import MAX_NUM_TOKENS, WorkloadError

MAX_TOKEN_ID = 2**31 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Prompt = int | np.ndarray | str  # as a trace has it: its number of tokens, its token ids (int32) or its text
# A line -> (arrival in the format's ticks, prompt, output tokens); any of MALFORMED, or Unexpected, where it cannot.
LineParser = Callable[[str], tuple[float, Prompt, int]]
MALFORMED = (ValueError, TypeError, LookupError, ArithmeticError, csv.Error)


class Unexpected(Exception):
    """A row with a value that cannot be. The text says what is expected instead."""


def _microseconds(timestamp: str) -> int:
    time = datetime.fromisoformat(timestamp)
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return (time - EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """Comma-separated values under a header; columns are found by name and others are ignored.

    `fields` are the columns of arrival time, prompt tokens and output tokens. `read_ticks` turns a time into ticks, of
    which `ticks_per_s` make a second, counted from the first row where `from_first_row` is set.
    """

    fields: tuple[str, str, str]
    example: str
    read_ticks: Callable[[str], float]
    ticks_per_s: int
    from_first_row: bool
    num_header_lines: int = 1

    @property
    def first_line(self) -> str:
        return ",".join(self.fields)

    def matches(self, first_line: str) -> bool:
        return set(self.fields) <= set(_csv_values(first_line))

    def line_parser(self, first_line: str) -> LineParser:
        header = _csv_values(first_line)
        columns = operator.itemgetter(*map(header.index, self.fields))

        def parse(line: str) -> tuple[float, int, int]:
            values = _csv_values(line)
            if len(values) != len(header):
                raise ValueError
            time, prompt_tokens, output_tokens = columns(values)
            return self.read_ticks(time), int(prompt_tokens), int(output_tokens)

        return parse


@dataclass(frozen=True, slots=True)
class JsonLinesFormat:
    """One JSON object a line, no header; the members of a `CsvFormat` mean the same here. `read_prompt` reads the second field.

    Times are counted from the trace's start. A `length_field` beside the prompt's token ids must agree with them.
    """

    fields: tuple[str, str, str]
    example: str
    ticks_per_s: int
    read_prompt: Callable[[Any], Prompt]
    length_field: str = ""
    from_first_row: bool = False
    num_header_lines: int = 0

    @property
    def first_line(self) -> str:
        return self.example

    def matches(self, first_line: str) -> bool:
        try:
            return first_line.lstrip().startswith("{") and self.fields[1] in json.loads(first_line)
        except MALFORMED:
            return False

    def line_parser(self, first_line: str) -> LineParser:
        members = operator.itemgetter(*self.fields)

        def parse(line: str) -> tuple[float, int, int]:
            row = json.loads(line)
            time, prompt, output_tokens = members(row)
            prompt = self.read_prompt(prompt)
            if self.length_field in row and row[self.length_field] != len(prompt):
                raise Unexpected(f"{self.length_field} to be the number of its {self.fields[1]}, {len(prompt)}")
            # operator.index refuses 12.7 and "12", where int() would silently make them 12.
            return float(time), prompt, operator.index(output_tokens)

        return parse


def _token_ids(value: Any) -> np.ndarray:
    ids = np.array(value)
    if ids.ndim != 1 or ids.dtype.kind != "i" or ids.min() < 0 or ids.max() > MAX_TOKEN_ID:
        raise Unexpected(f"prompt_token_ids to be a list of ids from 0 to {MAX_TOKEN_ID}, one at least")
    return ids.astype(np.int32)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise Unexpected("prompt to be text, one character at least")
    value.encode()  # raises where half of a surrogate pair stands alone, which is no text
    return value


def _csv_values(line: str) -> list[str]:
    return [value.strip() for value in next(csv.reader([line]), [])]


TRACE_FORMATS: dict[str, CsvFormat | JsonLinesFormat] = {
    # Azure LLM inference dataset 2023 (AzurePublicDataset); read to the microsecond, which is all it holds.
    "azure": CsvFormat(
        fields=("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
        example="2023-11-16 18:17:03.9799600,4808,10",
        read_ticks=_microseconds,
        ticks_per_s=1_000_000,
        from_first_row=True,
    ),
    # Prompts in the terms of vLLM's completions: token ids, or text for the checkpoint's tokenizer; seconds from the start.
    "token_ids": JsonLinesFormat(
        fields=("timestamp", "prompt_token_ids", "output_length"),
        example='{"timestamp": 1.5, "prompt_token_ids": [1, 5, 7], "output_length": 20}',
        ticks_per_s=1,
        read_prompt=_token_ids,
        length_field="input_length",
    ),
    "text": JsonLinesFormat(
        fields=("timestamp", "prompt", "output_length"),
        example='{"timestamp": 1.5, "prompt": "Hello", "output_length": 20}',
        ticks_per_s=1,
        read_prompt=_text,
    ),
    # Mooncake's FAST25 release: milliseconds from the trace's start.
    "mooncake": JsonLinesFormat(
        fields=("timestamp", "input_length", "output_length"),
        example='{"timestamp": 3000, "input_length": 6758, "output_length": 500}',
        ticks_per_s=1_000,
        read_prompt=operator.index,
    ),
    # SplitwiseSim's generated traces: seconds from the trace's start.
    "plain": CsvFormat(
        fields=("arrival_timestamp", "prompt_size", "token_size"),
        example="0.0101,1339,420",
        read_ticks=float,
        ticks_per_s=1,
        from_first_row=False,
    ),
}


def read_trace(path: Path, format_name: str) -> tuple[np.ndarray, np.ndarray | list[np.ndarray] | list[str], np.ndarray]:
    """Read the whole trace at `path` as (arrival_s, prompts, output_tokens), one entry of each a request.

    The prompts are an array of their numbers of tokens, or a list of their token ids (int32 arrays) or of their texts: what the
    format has. `format_name` is a key of TRACE_FORMATS, or `auto` to go by the first line. Blank lines are skipped. Raises
    WorkloadError, with the line, for a file that cannot be read, an unknown header, no rows, a malformed row, a time
    before that of the row above (rows are never re-ordered), a token count below 1 (rows are never dropped) and a prompt that
    is no text or no token ids.
    """
    lines = _read_lines(path)
    trace_format = _recognise(path, format_name, lines[0])
    parse = trace_format.line_parser(lines[0])
    ticks, prompts, output_tokens = [], [], []
    for line_num, line in enumerate(lines[trace_format.num_header_lines :], trace_format.num_header_lines + 1):
        if not line.strip():
            continue
        try:
            time, prompt, output = parse(line)
        except Unexpected as error:
            raise _line_error(path, line_num, line, str(error)) from error
        except MALFORMED as error:
            raise _line_error(path, line_num, line, f"a row like {trace_format.example}") from error
        time_field, *length_fields = trace_format.fields
        if not 0 <= time < math.inf:
            raise _line_error(path, line_num, line, f"{time_field} to be a time >= 0")
        if ticks and time < ticks[-1]:
            raise _line_error(path, line_num, line, f"{time_field} to be no earlier than in the row above")
        for field, tokens in zip(length_fields, (prompt, output), strict=True):
            if isinstance(tokens, int) and not 1 <= tokens <= MAX_NUM_TOKENS:
                raise _line_error(path, line_num, line, f"{field} to be from 1 to {MAX_NUM_TOKENS}")
        ticks.append(time)
        prompts.append(prompt)
        output_tokens.append(output)
    if not ticks:
        raise WorkloadError(f"workload.path={path}: a header and no rows; expected at least one request")
    start = ticks[0] if trace_format.from_first_row else 0
    arrival_s = (np.array(ticks) - start) / trace_format.ticks_per_s
    has_lengths_only = isinstance(prompts[0], int)
    return arrival_s, np.array(prompts, np.int64) if has_lengths_only else prompts, np.array(output_tokens, np.int64)


def _read_lines(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = file.readlines()
    except OSError as error:
        raise WorkloadError(f"workload.path={path}: {error.strerror}; expected a trace file") from error
    except UnicodeDecodeError as error:
        raise WorkloadError(f"workload.path={path}: not UTF-8 text; expected a trace file") from error
    if not any(map(str.strip, lines)):
        raise WorkloadError(f"workload.path={path}: empty file; expected a trace")
    return lines


def _recognise(path: Path, format_name: str, first_line: str) -> CsvFormat | JsonLinesFormat:
    allowed = TRACE_FORMATS if format_name == "auto" else {format_name: TRACE_FORMATS[format_name]}
    for trace_format in allowed.values():
        if trace_format.matches(first_line):
            return trace_format
    expected = " or ".join(f"{trace_format.first_line} ({name})" for name, trace_format in allowed.items())
    raise _line_error(path, 1, first_line, expected)


def _line_error(path: Path, line_num: int, line: str, expected: str) -> WorkloadError:
    line = line.rstrip("\n")
    shown = line if len(line) <= 80 else line[:77] + "..."
    return WorkloadError(f"workload.path={path}, line {line_num}: {shown!r}; expected {expected}")
