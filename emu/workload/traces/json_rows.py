"""Rows that are one JSON object a line."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn

import numpy as np

from emu.workload.traces.csv_rows import RowParser
from emu.workload.traces.row import MALFORMED, Row, Unexpected, whole_json
from emu.workload.traces.times import FixedUnit, json_time

MAX_TOKEN_ID = 2**31 - 1
MAX_NUM_UNUSED = 1_000  # names remembered: a hostile file may have another one in every row
ReadPrompt = Callable[[str, Any], int | np.ndarray | str]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity, which Python's reader would take


# Decimals keep the digits that are in the file.
DECODE = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse_constant).decode


@dataclass(frozen=True, slots=True)
class JsonLinesFormat:
    """The members of a `CsvFormat` mean the same here. `read_prompt` reads the second field.

    `kept` members come with each request. A `length_field` beside the prompt must agree with it. `block_tokens` is how many
    tokens an entry of hash_ids stands for. A file is recognised by `marks`, members of its first row.
    """

    name: str
    fields: tuple[str, str, str]
    example: str
    unit: FixedUnit | None
    read_prompt: ReadPrompt
    marks: tuple[str, ...]
    length_field: str = ""
    kept: tuple[str, ...] = ()
    block_tokens: int = 0
    has_header: bool = False
    count_field: str = ""

    @property
    def used(self) -> set[str]:
        return {*self.fields, self.length_field} - {""}

    @property
    def used_in_order(self) -> tuple[str, ...]:
        return self.fields

    @property
    def first_line(self) -> str:
        return self.example

    def names_in(self, first_line: str) -> list[str]:
        try:
            row = DECODE(first_line)
        except MALFORMED:
            return []
        return list(row) if isinstance(row, dict) else []

    def line_parser(self, first_line: str, unused: set[str]) -> RowParser:
        time_field, prompt_field, output_field = self.fields
        used, kept, length_field, read_prompt = self.used, self.kept, self.length_field, self.read_prompt

        def parse(line: str) -> Row:
            row = DECODE(line)
            if type(row) is not dict:
                raise TypeError
            if row.keys() - used and len(unused) < MAX_NUM_UNUSED:
                unused.update(row.keys() - used)
            if time_field not in row and "delay" in row:
                raise Unexpected(f"{time_field}: a row with delay alone waits for the answer before it, which no run does yet")
            prompt = read_prompt(prompt_field, row[prompt_field])
            if length_field in row and not isinstance(prompt, int) and row[length_field] != len(prompt):
                raise Unexpected(f"{length_field} to be the number of its {prompt_field}, {len(prompt)}")
            time = json_time(time_field, row[time_field])
            return Row(time, prompt, whole_json(output_field, row[output_field]), 1, row if kept else None)

        return parse


def token_ids(field: str, value: Any) -> np.ndarray:
    """The ids (int32) that a list has. Raises Unexpected."""
    if not isinstance(value, list) or set(map(type, value)) != {int} or min(value) < 0 or max(value) > MAX_TOKEN_ID:
        raise Unexpected(f"{field} to be a list of ids from 0 to {MAX_TOKEN_ID}, one at least")
    return np.array(value, np.int32)


def prompt_text(field: str, value: Any) -> str:
    """The text that a value is. Raises Unexpected; ValueError where half of a surrogate pair stands alone, which is no text."""
    if not isinstance(value, str) or not value:
        raise Unexpected(f"{field} to be text, one character at least")
    value.encode()
    return value


def kept_value(name: str, value: Any) -> Any:
    """A member as the workload keeps it: plain numbers and text, hash_ids as an int64 array. Raises Unexpected."""
    if name == "hash_ids":
        value = [] if value is None else value
        is_whole = isinstance(value, list) and set(map(type, value)) <= {int}
        if not is_whole or (value and not -(2**63) <= min(value) <= max(value) < 2**63):
            raise Unexpected("hash_ids to be a list of whole numbers")
        return np.array(value, np.int64)
    if isinstance(value, Decimal):
        return float(value)
    if value is not None and type(value) not in (int, str):
        raise Unexpected(f"{name} to be a number or text")
    return value
