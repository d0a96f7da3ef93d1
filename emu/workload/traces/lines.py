"""Bytes to lines: of bounded length, each good text or marked as bad."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from emu.workload.traces.file import TraceFile

MAX_LINE_BYTES = 16 << 20  # a prompt of two million token ids
CONTROLS = bytes(code for code in (*range(32), 127) if code not in b"\t\n")
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


class BadLine(NamedTuple):
    """A line that cannot be text. `problem` says what is expected instead."""

    text: str
    problem: str


def line_blocks(file: TraceFile) -> Iterator[bytes]:
    """The bytes of `file`, some thousands of whole lines at a time, \\n between them and \\r\\n made that.

    Raises WorkloadError for a line over MAX_LINE_BYTES.
    """
    rest: list[bytes] = []
    num_lines = num_rest = 0
    is_first = True
    for block in file.blocks():
        if is_first:
            block, is_first = block.removeprefix(b"\xef\xbb\xbf"), False
        whole, newline, tail = block.rpartition(b"\n")
        if newline:
            lines = _unix(b"".join([*rest, whole]))
            num_lines += lines.count(b"\n") + 1
            yield lines
            rest, num_rest = [], 0
        rest.append(tail)
        num_rest += len(tail)
        if num_rest > MAX_LINE_BYTES:
            raise file.error(f"line {num_lines + 1} is longer than {MAX_LINE_BYTES >> 20} MiB; expected a row a line")
    if num_rest:
        yield _unix(b"".join(rest))


def _unix(block: bytes) -> bytes:
    return block.replace(b"\r\n", b"\n").removesuffix(b"\r") if b"\r" in block else block


def lines_of(block: bytes) -> Sequence[str | BadLine]:
    """The lines of a block. One with a control character other than a tab, or of other bytes than UTF-8, is a BadLine."""
    try:
        text = block.decode()
    except UnicodeDecodeError:
        return [_checked(line) for line in block.split(b"\n")]
    if len(block.translate(None, CONTROLS)) < len(block):
        return [_checked(line) for line in block.split(b"\n")]
    return text.split("\n")


def _checked(line: bytes) -> str | BadLine:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return BadLine(line.decode(errors="replace"), "UTF-8 text")
    return BadLine(text, "text without control characters") if CONTROL.search(text) else text
