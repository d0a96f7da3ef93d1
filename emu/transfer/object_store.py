"""KV payloads through Ray's object store: the source puts them, the destination pulls and verifies them.

A payload is moved in pieces, each put from one buffer that is made and touched once, so that holding many caches costs the
store's memory and no other. A piece's first bytes are stamped with whose it is and which, so that a piece that belongs to
another request does not pass. All copies and checksums are made on threads, off the event loop.
"""

import asyncio
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import ray
import xxhash
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError

PIECE_BYTES = 16 << 20
RETRY_S = 0.05
PROBE_S = 0.6

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

    Made and used inside one actor's event loop; its methods that are called from other actors are `offer` only.
    """

    def __init__(self, bytes_per_token: float) -> None:
        self.bytes_per_token = bytes_per_token
        self.counts = TransferCounts()
        self._held: dict[Key, tuple[asyncio.Task, int]] = {}
        self._putter = ThreadPoolExecutor(1, "kv-put")  # one: it owns the buffer
        self._verifier = ThreadPoolExecutor(1, "kv-verify")
        self._buffer = np.random.default_rng(0).integers(0, 256, PIECE_BYTES, dtype=np.uint8)

    def take_counts(self) -> TransferCounts:
        counts, self.counts = self.counts, TransferCounts()
        return counts

    # --- source -------------------------------------------------------------------------------------------------------

    def hold(self, request_id: int, attempt: int, num_tokens: int) -> None:
        """Put the payload of `num_tokens` tokens, to be pulled until `free`."""
        num_bytes = self._num_bytes(num_tokens)
        if num_bytes:
            self._held[request_id, attempt] = (self._put((request_id, attempt), num_bytes), num_bytes)

    def free(self, request_id: int, attempt: int) -> None:
        """Drop a held payload; nothing if there is none."""
        task, _ = self._held.pop((request_id, attempt), (None, 0))
        if task is not None:
            task.cancel()

    async def offer(self, request_id: int, attempt: int, again: bool) -> list[tuple[ray.ObjectRef, int]]:
        """The references and checksums of a held payload's pieces, put anew if `again`. Raises KeyError if not held."""
        key = (request_id, attempt)
        if again:
            num_bytes = self._held[key][1]
            self._held[key] = (self._put(key, num_bytes), num_bytes)
        return await asyncio.shield(self._held[key][0])

    def _put(self, key: Key, num_bytes: int) -> asyncio.Task:
        loop = asyncio.get_running_loop()
        return asyncio.ensure_future(loop.run_in_executor(self._putter, self._put_pieces, key, num_bytes))

    def _put_pieces(self, key: Key, num_bytes: int) -> list[tuple[ray.ObjectRef, int]]:
        return [
            self._put_piece(key, index, min(PIECE_BYTES, num_bytes - start))
            for index, start in enumerate(range(0, num_bytes, PIECE_BYTES))
        ]

    def _put_piece(self, key: Key, index: int, num_bytes: int) -> tuple[ray.ObjectRef, int]:
        piece = self._buffer[:num_bytes]
        stamp = np.frombuffer(_STAMP.pack(*key, index), dtype=np.uint8)[:num_bytes]
        piece[: len(stamp)] = stamp
        return ray.put(piece), xxhash.xxh3_64_intdigest(piece)

    # --- destination --------------------------------------------------------------------------------------------------

    async def pull(self, source: ActorHandle, request_id: int, attempt: int, num_tokens: int) -> None:
        """Return once the payload that `source` holds is here and verified; a corrupt or missing one is pulled again.

        Raises SourceLost where the source is gone.
        """
        num_bytes = self._num_bytes(num_tokens)
        if not num_bytes:
            return
        started = time.perf_counter()
        again = False
        while not await self._pull_once(source, (request_id, attempt), num_bytes, again):
            self.counts.corrupt += 1
            again = True
            await asyncio.sleep(RETRY_S)
        self.counts.verified += 1
        self.counts.wire_s.append(time.perf_counter() - started)

    async def _pull_once(self, source: ActorHandle, key: Key, num_bytes: int, again: bool) -> bool:
        loop = asyncio.get_running_loop()
        num_received = 0
        try:
            for index, (ref, checksum) in enumerate(await source.offer.remote(*key, again)):
                piece = await ref
                self.counts.bytes_moved += piece.nbytes
                num_received += piece.nbytes
                if not await loop.run_in_executor(self._verifier, _is_intact, piece, checksum, (*key, index)):
                    return False
        except (ActorDiedError, ActorUnavailableError) as lost:
            raise SourceLost(str(lost)) from lost
        except RayError:
            return False  # the object is lost or the source does not hold it: missing
        return num_received == num_bytes

    async def measure(self, source: ActorHandle, seconds: float = PROBE_S) -> float:
        """Bytes a second of put, pull and verify from `source`, with buffers in use: whole pieces for `seconds`."""
        num_tokens = max(1, round(2 * PIECE_BYTES / self.bytes_per_token))
        num_bytes, started = 0, 0.0
        for turn in range(1_000_000):
            await source.hold.remote(-1, turn, num_tokens)
            await self.pull(source, -1, turn, num_tokens)
            await source.free.remote(-1, turn)
            if turn == 0:
                started = time.perf_counter()  # the first touches fresh memory
                continue
            num_bytes += self._num_bytes(num_tokens)
            if time.perf_counter() - started > seconds:
                break
        self.take_counts()
        return num_bytes / (time.perf_counter() - started)

    def _num_bytes(self, num_tokens: int) -> int:
        return round(num_tokens * self.bytes_per_token)


def _is_intact(piece: np.ndarray, checksum: int, stamp: tuple[int, int, int]) -> bool:
    expected = _STAMP.pack(*stamp)[: piece.nbytes]
    return piece[: len(expected)].tobytes() == expected and xxhash.xxh3_64_intdigest(piece) == checksum
