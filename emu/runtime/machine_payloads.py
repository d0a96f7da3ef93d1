"""The payloads of one machine's hand-overs: what it sends as a KV cache, and what it takes for one."""

import asyncio
import time
from dataclasses import replace

from emu.core.cluster import Cluster
from emu.execution.protocol import Executor
from emu.execution.torch_engine.errors import EngineError
from emu.transfer.cache_payload import CachePayload
from emu.transfer.destination import TransferFailed
from emu.transfer.payload import KVLayout, KVPayload, Payload
from emu.transfer.production import LiveProduction, Production, TimedProduction
from emu.transfer.source import AT_ONCE, Key

BLOCKS_POLL_S = 0.001


class MachinePayloads:
    """Payloads of the KV caches in `executor`, or of words that stand for them where it has none.

    The `real` machines send KV caches, the others such words. `scale` is the fraction of the bytes that is moved.
    """

    def __init__(self, cluster: Cluster, executor: Executor, real: frozenset[int], timeout_s: float) -> None:
        self._executor = executor
        self._real = real
        self._timeout_s = timeout_s
        self._kv_bytes_per_token = cluster.model.kv_bytes_per_token
        self._num_pieces, self._layers_per_piece = cluster.num_pieces, cluster.layers_per_piece
        block_tokens = getattr(cluster.kind, "block_tokens", 1)  # machines of the compatible mode have none
        self._layout = KVLayout(cluster.model, block_tokens, 0.0)
        self._leaving: dict[Key, tuple[Payload, LiveProduction]] = {}  # what the step in flight prefills, layer by layer

    @property
    def scale(self) -> float:
        return self._layout.scale

    @scale.setter
    def scale(self, scale: float) -> None:
        self._layout = replace(self._layout, scale=scale)

    def num_bytes(self, num_tokens: int) -> int:
        """Bytes that are moved of a KV cache of `num_tokens` tokens."""
        return max(1, round(num_tokens * self._kv_bytes_per_token * self.scale)) if self.scale else 0

    def held(self, key: Key, num_tokens: int, timed: TimedProduction) -> tuple[Payload, Production]:
        """What is sent of a KV cache, and when its pieces are there: as `timed`, unless an engine computes them."""
        cache = self._executor.cache_of(*key, num_tokens)
        if cache is None:
            return self._words(key, num_tokens), timed
        payload = CachePayload(self.num_bytes(num_tokens), self._num_pieces, cache)
        if self._executor.is_prefilling(*key):
            production = LiveProduction()
            self._leaving[key] = (payload, production)
            return payload, production
        payload.trailer = self._executor.output_ids(*key)
        return payload, AT_ONCE

    async def expected(self, source: int, key: Key, num_tokens: int) -> Payload:
        """What is to come from `source`. Of a real KV cache nobody here knows the bytes. Raises TransferFailed."""
        words, is_real = self._words(key, num_tokens), source in self._real
        if not self._executor.has_kv_caches:
            return CachePayload(words.num_bytes, self._num_pieces, None) if is_real else words
        give_up = time.monotonic() + self._timeout_s
        while True:  # the blocks are free, or will be in a moment: those of what was dropped come free with the step in flight
            try:
                cache = self._executor.expect(*key, num_tokens, is_real)
                return CachePayload(words.num_bytes, self._num_pieces, cache, None if is_real else words)
            except EngineError as error:
                if time.monotonic() > give_up:
                    raise TransferFailed(f"no room for it at its destination: {error}") from error
                await asyncio.sleep(BLOCKS_POLL_S)

    def on_layer(self, layer: int) -> None:
        """A layer of what is being prefilled is done. The last piece waits for the token that goes along."""
        num_pieces = min((layer + 1) // self._layers_per_piece, self._num_pieces - 1)
        for _, production in self._leaving.values():
            production.advance(num_pieces)

    def on_step_end(self) -> None:
        """What was being prefilled is complete, with its first token."""
        for key, (payload, production) in self._leaving.items():
            payload.trailer = self._executor.output_ids(*key)
            production.advance(self._num_pieces)
        self._leaving = {}

    def _words(self, key: Key, num_tokens: int) -> KVPayload:
        return KVPayload(*key, self.num_bytes(num_tokens), self._num_pieces, self._layout)
