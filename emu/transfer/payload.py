"""What emulated machines move in place of a KV cache: bytes that tell whose they are and where they belong.

The payload of a request is a sequence of 64-bit words, word i = key + i x STEP mod 2^64, where the key is a hash of request
and attempt and STEP is odd. So no two words of a payload are equal, and a receiver verifies every byte from the request's
number alone: what is corrupt, stale, another request's or in the wrong place differs, and a word out of place says where it
belongs. The source tells the checksum (XXH3, 64 bits) of each message as well: with it, what was changed on the way is told
from what was sent so. Writing goes at 11 GB/s and verifying at 9, on one core, in tiles that stay in its cache.

The order is that of engines that keep a tensor a layer: layers x (K, V) x blocks x tokens x heads x head dimension.
"""

import threading
from abc import ABC, abstractmethod
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import xxhash

from emu.core.specs import ModelSpec

WORD_BYTES = 8
TILE_WORDS = 1 << 15  # 256 KiB
STEP = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: neighbours differ in all their bytes
MASK = (1 << 64) - 1
WRONG_CHECKSUM = "its checksum is not the one that was sent"
_STEP_INVERSE = pow(STEP, -1, 1 << 64)
_TILE = np.arange(TILE_WORDS, dtype=np.uint64) * np.uint64(STEP)
_scratch = threading.local()


@dataclass(frozen=True, slots=True)
class KVLayout:
    """Where a byte of a KV cache of `model` belongs, in blocks of `block_tokens` tokens; `scale` of its bytes are moved."""

    model: ModelSpec
    block_tokens: int
    scale: float

    def place_of(self, offset: int, num_bytes: int) -> str:
        """The place of byte `offset` of a cache of `num_bytes`, for a message."""
        rows = 2 * self.model.num_layers
        row, within = divmod(offset * rows / max(num_bytes, 1), 1)
        num_tokens = num_bytes / (self.model.kv_bytes_per_token * self.scale)
        kind = "V" if int(row) % 2 else "K"
        return f"layer {int(row) // 2}, {kind}, block {int(within * num_tokens / self.block_tokens)}"


class Payload(ABC):
    """The bytes of a hand-over: `num_bytes` in `num_pieces` pieces, equal but for rounding to whole words.

    A piece is what leaves as one: a layer, or a group of layers. `trailer` goes with the last byte: what the destination has to
    know beside the KV cache, b"" where that is nothing.
    """

    def __init__(self, num_bytes: int, num_pieces: int = 1) -> None:
        self.num_bytes = num_bytes
        self.trailer = b""
        self.ends = [num_bytes * (piece + 1) // num_pieces // WORD_BYTES * WORD_BYTES for piece in range(num_pieces - 1)]
        self.ends.append(num_bytes)

    def piece_at(self, stop: int) -> int:
        """The last piece of which bytes [0, stop) have anything."""
        return bisect_left(self.ends, stop)

    def end_of_pieces(self, num_pieces: int) -> int:
        """How many bytes the first `num_pieces` pieces have."""
        return self.ends[num_pieces - 1] if num_pieces else 0

    @abstractmethod
    def fill(self, start: int, out: np.ndarray) -> int:
        """Write bytes [start, start + len(out)), where `start` is a whole word, into `out` (uint8). Returns their checksum."""

    @abstractmethod
    def check(self, start: int, received: np.ndarray, checksum: int) -> str:
        """What is wrong with bytes [start, start + len(received)), sent with `checksum`; '' where they are right."""


class KVPayload(Payload):
    """The payload of one attempt of a request that a machine sends which has no KV cache."""

    def __init__(
        self, request_id: int, attempt: int, num_bytes: int, num_pieces: int = 1, layout: KVLayout | None = None
    ) -> None:
        super().__init__(num_bytes, num_pieces)
        identity = np.array([request_id, attempt], dtype=np.int64)
        self._key = xxhash.xxh3_64_intdigest(identity.data)
        self.layout = layout

    def fill(self, start: int, out: np.ndarray) -> int:
        num_whole = len(out) // WORD_BYTES * WORD_BYTES
        words, first_word = out[:num_whole].view(np.uint64), start // WORD_BYTES
        digest = xxhash.xxh3_64()
        for first in range(0, len(words), TILE_WORDS):
            tile = words[first : first + TILE_WORDS]
            np.add(_TILE[: len(tile)], self._word(first_word + first), out=tile)
            digest.update(tile.data)
        out[num_whole:] = self._tail(start + num_whole, len(out) - num_whole)
        digest.update(out[num_whole:].data)
        return digest.intdigest()

    def verify(self, start: int, received: np.ndarray) -> tuple[int | None, int]:
        """The offset in the payload of the first word that is not as it should be in bytes [start, start + len(received)),
        None where all are, and the checksum of what was received."""
        if not hasattr(_scratch, "tile"):
            _scratch.tile = np.empty(TILE_WORDS, dtype=np.uint64)
        num_whole = len(received) // WORD_BYTES * WORD_BYTES
        words, first_word = received[:num_whole].view(np.uint64), start // WORD_BYTES
        digest, wrong = xxhash.xxh3_64(), None
        for first in range(0, len(words), TILE_WORDS):
            tile = words[first : first + TILE_WORDS]
            digest.update(tile.data)
            found = np.subtract(tile, _TILE[: len(tile)], out=_scratch.tile[: len(tile)])
            is_right = found == self._word(first_word + first)
            if wrong is None and not is_right.all():
                wrong = start + (first + int(is_right.argmin())) * WORD_BYTES
        digest.update(received[num_whole:].data)
        tail = self._tail(start + num_whole, len(received) - num_whole)
        if wrong is None and not np.array_equal(received[num_whole:], tail):
            wrong = start + num_whole
        return wrong, digest.intdigest()

    def check(self, start: int, received: np.ndarray, checksum: int) -> str:
        wrong, received_checksum = self.verify(start, received)
        was_changed = received_checksum != checksum
        if wrong is not None:
            how = "was changed on the way" if was_changed else "came as it was sent"
            return f"{self.explain(start, received, wrong)}, and {how}"
        return WRONG_CHECKSUM if was_changed else ""

    def explain(self, start: int, received: np.ndarray, offset: int) -> str:
        """What is wrong at `offset` of the payload, for a message; `received` are its bytes from `start` on."""
        place = f"byte {offset}" if self.layout is None else self.layout.place_of(offset, self.num_bytes)
        word = received[offset - start : offset - start + WORD_BYTES]
        if len(word) == WORD_BYTES:
            index = (int(word.view(np.uint64)[0]) - self._key) * _STEP_INVERSE & MASK
            if index * WORD_BYTES < self.num_bytes:
                other = index * WORD_BYTES
                belongs = f"byte {other}" if self.layout is None else self.layout.place_of(other, self.num_bytes)
                return f"{place} holds what belongs to {belongs}"
        return f"{place} holds bytes that are not this request's"

    def _word(self, index: int) -> np.uint64:
        return np.uint64((self._key + index * STEP) & MASK)

    def _tail(self, start: int, num_bytes: int) -> np.ndarray:
        return np.frombuffer(self._word(start // WORD_BYTES).tobytes(), dtype=np.uint8)[:num_bytes]
