"""Files that are written whole or not at all, and files from anywhere that are read within bounds."""

import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOCK = ".lock"  # in a directory, for `locked`
MAX_TEXT_BYTES = 256 << 20  # of a text that is read as a whole; the largest tokenizer.json has 35 MB


def open_new(path: Path) -> Path:
    """Make an empty file beside `path` that is to become it, and return where it is. Raises OSError.

    One that a killed process left is replaced. Nothing is ever written through a link that somebody put there.
    """
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return temporary


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the path of an empty file, which becomes `path` at the end, or vanishes after an exception. Raises OSError.

    A reader never sees half a file, and a link at `path` is replaced, not followed.
    """
    temporary = open_new(path)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(text: str, path: Path) -> None:
    """Write `text` to `path` as UTF-8, all or nothing. Raises OSError."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def locked(path: Path, waits: bool = False) -> Iterator[None]:
    """A context that one process at a time is in, for each file at `path`, which is made.

    Raises BlockingIOError where another process is in it, unless this one `waits`; OSError where the file cannot be made.
    """
    with open(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))  # falls with the process, however it ends
        yield


def read_text(path: Path) -> str:
    """The text of a regular file of at most MAX_TEXT_BYTES. Raises OSError, ValueError where it is no UTF-8 or too long."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), encoding="utf-8") as file:  # a FIFO without a writer would block
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if status.st_size > MAX_TEXT_BYTES:
            raise ValueError(f"{status.st_size:,} bytes; expected at most {MAX_TEXT_BYTES:,}")
        return file.read()


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError, also where it is nested more deeply than Python's stack."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
