"""KV payloads through Ray's object store: the destination calls for them, piece by piece, and verifies each.

A piece is what one actor call returns: Ray stores it on the source's node, and the destination reads it there or gets it from
there. One call that returns a piece takes 6 ms of CPU where a put, a reference handed over and its release take 14 (measured,
740 KB on one node). Pieces are cut from one buffer that is made and touched once, so that holding a cache costs nothing but
its entry; a piece's first bytes say whose it is and which, so that another request's piece does not pass. Copies and checksums
are made off the event loop.
"""

import asyncio
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import xxhash
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError

PIECE_BYTES = 16 << 20
MAX_PIECES_IN_FLIGHT = 2  # one is copied at the source while the one before is verified
RETRY_S = 0.05

_STAMP = struct.Struct("<qqq")  # request, attempt, piece
Key = tuple[int, int]  # request, attempt


class SourceLost(RuntimeError):
    """The machine that held the payload is gone."""


@dataclass(slots=True)
class TransferCounts:
    """What has been moved since the counts were last taken. `wire_s` has the seconds of each verified pull."""

    bytes_moved: int = 0
    verified: int = 0
    corrupt: int = 0
    wire_s: list[float] = field(default_factory=list)


class ObjectStoreTransfer:
    """Both ends of a machine's transfers. `bytes_per_token` is the true KV size times the payload scale; 0 moves nothing.

    `piece` is called by one thread at a time, which may be another than that of all other methods: an actor's event loop.
    """

    def __init__(self, bytes_per_token: float) -> None:
        self.bytes_per_token = bytes_per_token
        self.counts = TransferCounts()
        self._held: dict[Key, int] = {}
        self._verifier = ThreadPoolExecutor(1, "kv-verify")
        self._buffer = np.empty(0, dtype=np.uint8)

    def take_counts(self) -> TransferCounts:
        counts, self.counts = self.counts, TransferCounts()
        return counts

    # --- source -------------------------------------------------------------------------------------------------------

    def hold(self, request_id: int, attempt: int, num_tokens: int) -> None:
        """Let the payload of `num_tokens` tokens be pulled until `free`."""
        self._held[request_id, attempt] = self._num_bytes(num_tokens)

    def free(self, request_id: int, attempt: int) -> None:
        """Drop a held payload; nothing if there is none."""
        self._held.pop((request_id, attempt), None)

    def piece(self, request_id: int, attempt: int, index: int) -> tuple[int, np.ndarray]:
        """Checksum and bytes of a held payload's piece, valid until the next call. Raises KeyError if it is not held."""
        num_bytes = min(PIECE_BYTES, self._held[request_id, attempt] - index * PIECE_BYTES)
        if num_bytes > len(self._buffer):
            # Rounded up, so that it soon grows no more. A machine that holds nothing has none.
            self._buffer = np.random.default_rng(0).integers(0, 256, 1 << (num_bytes - 1).bit_length(), dtype=np.uint8)
        piece = self._buffer[:num_bytes]
        stamp = np.frombuffer(_STAMP.pack(request_id, attempt, index), dtype=np.uint8)[:num_bytes]
        piece[: len(stamp)] = stamp
        return xxhash.xxh3_64_intdigest(piece), piece

    # --- destination --------------------------------------------------------------------------------------------------

    async def pull(self, source: ActorHandle, request_id: int, attempt: int, num_tokens: int) -> None:
        """Return once the payload that `source` holds is here and verified; a corrupt or missing piece is pulled again.

        Raises SourceLost where the source is gone.
        """
        num_bytes = self._num_bytes(num_tokens)
        if not num_bytes:
            return
        started = time.perf_counter()
        pieces = iter(
            [(index, min(PIECE_BYTES, num_bytes - start)) for index, start in enumerate(range(0, num_bytes, PIECE_BYTES))]
        )
        async with asyncio.TaskGroup() as group:
            for _ in range(MAX_PIECES_IN_FLIGHT):
                group.create_task(self._pull_pieces(source, (request_id, attempt), pieces))
        self.counts.verified += 1
        self.counts.wire_s.append(time.perf_counter() - started)

    async def _pull_pieces(self, source: ActorHandle, key: Key, pieces: Iterator[tuple[int, int]]) -> None:
        for index, num_bytes in pieces:
            while not await self._pull_piece(source, key, index, num_bytes):
                self.counts.corrupt += 1
                await asyncio.sleep(RETRY_S)

    async def _pull_piece(self, source: ActorHandle, key: Key, index: int, num_bytes: int) -> bool:
        try:
            checksum, piece = await source.piece.remote(*key, index)
        except (ActorDiedError, ActorUnavailableError) as lost:
            raise SourceLost(str(lost)) from lost
        except RayError:
            return False  # missing: lost on the way, or not held
        self.counts.bytes_moved += piece.nbytes
        verify = asyncio.get_running_loop().run_in_executor(self._verifier, _is_intact, piece, checksum, (*key, index))
        return piece.nbytes == num_bytes and await verify

    async def measure(self, source: ActorHandle, num_bytes: int, seconds: float) -> float:
        """Median seconds of a pull of `num_bytes` from `source`: one after the other for about `seconds`, at least three."""
        num_tokens = max(1, round(num_bytes / self.bytes_per_token))
        started, num_pulls = time.perf_counter(), 0
        while num_pulls < 3 or time.perf_counter() - started < seconds:
            key = (-1, num_pulls)
            await source.hold.remote(*key, num_tokens)
            await self.pull(source, *key, num_tokens)
            await source.free.remote(*key)
            num_pulls += 1
        return median(self.take_counts().wire_s)

    def _num_bytes(self, num_tokens: int) -> int:
        return round(num_tokens * self.bytes_per_token)


def _is_intact(piece: np.ndarray, checksum: int, stamp: tuple[int, int, int]) -> bool:
    expected = _STAMP.pack(*stamp)[: piece.nbytes]
    return piece[: len(expected)].tobytes() == expected and xxhash.xxh3_64_intdigest(piece) == checksum
