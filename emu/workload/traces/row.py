"""One row of a trace, and what a row may not be."""

import csv
import re
from decimal import Decimal
from typing import Any, NamedTuple

from emu.workload.workload import MAX_NUM_TOKENS

Time = int | Decimal  # in the file's own unit, every digit kept
MAX_NUM_AT_ONCE = 1_000_000
# What parsing a malformed line raises: RecursionError where JSON is nested too deeply.
MALFORMED = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, csv.Error)
WHOLE = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")


class Unexpected(Exception):
    """A row with a value that cannot be. The text says what is expected instead."""


class Row(NamedTuple):
    """`prompt` is the number of its tokens, its token ids or its text; `count` requests are all like this.

    `members` has all values of the row by name where the format keeps any, else it is None.
    """

    time: Time
    prompt: Any
    output_tokens: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    members: dict[str, Any] | None


def whole_text(field: str, text: str) -> int:
    """The whole number that `text` writes, such as 374 or 374.0. Raises Unexpected."""
    if text.isdecimal() and text.isascii() and len(text) < 20:
        return int(text)
    found = WHOLE.fullmatch(text.strip(" \t"))
    if not found:
        raise ValueError
    if len(found[1]) > 20:
        raise Unexpected(f"{field} to be from 1 to {MAX_NUM_TOKENS}")
    return int(found[1])


def whole_json(field: str, value: Any) -> int:
    """The whole number that a JSON value is: 374 or 374.0; true and "12" are none. Raises Unexpected."""
    if type(value) is int:
        return value
    if type(value) is not Decimal:
        raise TypeError
    if not -1 <= value <= MAX_NUM_TOKENS + 1:
        raise Unexpected(f"{field} to be from 1 to {MAX_NUM_TOKENS}")
    if value != int(value):
        raise ValueError
    return int(value)
