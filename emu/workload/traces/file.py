"""A trace file's bytes: read once, decompressed by content, hashed on the way."""

import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from emu.workload.workload import WorkloadError

BLOCK_BYTES = 1 << 20
MAX_BYTES = 64 << 30  # decompressed; the largest public trace (a week of Azure's 2024 conversations) has about 2 GiB
EXPECTED = "expected a trace file"
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
NOT_READ = {
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"PAR1": "Parquet",
}


class TraceFile:
    """Yields the decompressed bytes of the regular file at `path`, in blocks. `sha256` is of the file as it is stored.

    Raises WorkloadError for what is no regular file, cannot be read or decompressed, or has more than MAX_BYTES.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self.num_bytes_read = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def blocks(self) -> Iterator[bytes]:
        try:
            with self._open() as file:
                stream, num_bytes = self._decompressed(file), 0
                while block := stream.read(BLOCK_BYTES):
                    num_bytes += len(block)
                    if num_bytes > MAX_BYTES:
                        raise self.error(f"more than {MAX_BYTES >> 30} GiB decompressed; expected a shorter trace")
                    yield block
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self.error(f"cannot be decompressed: {error}; expected a whole gzip file") from error
        except OSError as error:
            problem = error.strerror or f"cannot be decompressed: {str(error).splitlines()[0]}"
            raise self.error(f"{problem}; {EXPECTED}") from error

    def error(self, problem: str) -> WorkloadError:
        return WorkloadError(f"workload.path={self.path}: {problem}")

    def _open(self) -> BinaryIO:
        # Not blocking: to open a FIFO without a writer would wait for one.
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except ValueError as error:  # a zero byte in the name
            raise self.error(f"{error}; {EXPECTED}") from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            kind = "Is a directory" if stat.S_ISDIR(status.st_mode) else "is no regular file"
            raise self.error(f"{kind}; {EXPECTED}")
        self.size_bytes = status.st_size
        return os.fdopen(descriptor, "rb")

    def _decompressed(self, file: BinaryIO) -> Any:
        head = file.read(max(map(len, NOT_READ)))
        file.seek(0)
        for magic, kind in NOT_READ.items():
            if head.startswith(magic):
                raise self.error(f"is {kind}; expected text, plain or compressed by gzip or zstd")
        stored = _Stored(file, self)
        if head.startswith(GZIP):
            return gzip.GzipFile(fileobj=stored)  # type: ignore[call-overload]  # reads and no more
        if head.startswith(ZSTD):
            import pyarrow

            return pyarrow.CompressedInputStream(pyarrow.PythonFile(stored, mode="r"), "zstd")
        return stored

    def _count(self, data: bytes) -> bytes:
        self._digest.update(data)
        self.num_bytes_read += len(data)
        return data


class _Stored:
    """The bytes of a file as they are stored, hashed as they are read; as much of a file as the decompressors need."""

    closed = False

    def __init__(self, file: BinaryIO, counter: TraceFile) -> None:
        self._file = file
        self._counter = counter

    def read(self, num_bytes: int = -1) -> bytes:
        return self._counter._count(self._file.read(num_bytes))

    def close(self) -> None:
        pass
