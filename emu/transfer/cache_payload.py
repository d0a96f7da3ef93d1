"""The payload of a hand-over to or from a machine that executes: the bytes of a real KV cache."""

import numpy as np
import xxhash

from emu.core.kv_bytes import KVBytes
from emu.transfer.payload import WRONG_CHECKSUM, Payload


class CachePayload(Payload):
    """Sent from `cache`, and received into it where this machine has one.

    Where `expected` is given, the source sends that, byte by byte: it has no KV cache. Of a real one only its source knows the
    bytes, and the checksum of each message tells whether they are what it sent. Nothing wrong is ever written to the cache.
    """

    def __init__(self, num_bytes: int, num_pieces: int, cache: KVBytes | None, expected: Payload | None = None) -> None:
        super().__init__(num_bytes, num_pieces)
        self._cache = cache
        self._expected = expected

    def fill(self, start: int, out: np.ndarray) -> int:
        assert self._cache is not None  # where there is none, nothing is sent
        self._cache.read(start, out)
        return xxhash.xxh3_64_intdigest(out.data)

    def check(self, start: int, received: np.ndarray, checksum: int) -> str:
        if self._expected is not None:
            problem = self._expected.check(start, received, checksum)
        else:
            problem = "" if xxhash.xxh3_64_intdigest(received.data) == checksum else WRONG_CHECKSUM
        if not problem and self._cache is not None:
            self._cache.write(start, received)
        return problem
