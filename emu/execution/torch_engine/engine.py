"""A transformer with its KV cache on one device: one step is one forward pass over any mix of prompts and decodes."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from emu.execution.model import Executable
from emu.execution.torch_engine.architecture import Architecture
from emu.execution.torch_engine.attention import GatheredDecode
from emu.execution.torch_engine.checkpoint import load_weights, randomize_weights
from emu.execution.torch_engine.chunk import Chunk
from emu.execution.torch_engine.device import check_memory, keep_freed_memory, parse_device, parse_dtype
from emu.execution.torch_engine.errors import EngineError
from emu.execution.torch_engine.kv_cache import PagedKVCache
from emu.execution.torch_engine.packed_batch import DecodeAttention, PackedBatch
from emu.execution.torch_engine.sampling import next_tokens
from emu.execution.torch_engine.transformer import Layer, Transformer

__all__ = ["Chunk", "Engine", "EngineError", "load_engine"]


class Engine:
    """Runs chunks of sequences whose blocks of `cache` the caller holds."""

    def __init__(self, model: Transformer, cache: PagedKVCache) -> None:
        self.model = model
        self.cache = cache
        self._decode_attention: Callable[[PagedKVCache, Sequence[Chunk]], DecodeAttention] = GatheredDecode
        self._graphs = None
        if self.device.type == "cuda":
            # Both bring torch's compiler, which takes a second to import.
            from emu.execution.torch_engine.cuda_graphs import DecodeGraphs
            from emu.execution.torch_engine.paged_decode import PagedDecode

            longest = min(self.architecture.max_positions, cache.num_blocks * cache.block_tokens)
            max_blocks = -(-longest // cache.block_tokens)
            self._decode_attention = partial(PagedDecode.of, max_blocks=max_blocks)
            self._graphs = DecodeGraphs(model, cache, max_blocks)

    @property
    def architecture(self) -> Architecture:
        return self.model.architecture

    @property
    def dtype(self) -> torch.dtype:
        return self.cache.layers[0].dtype

    @property
    def device(self) -> torch.device:
        return self.cache.layers[0].device

    def step(self, chunks: Sequence[Chunk], on_layer: Callable[[int], None] | None = None) -> list[int]:
        """One forward pass over the chunks; the next token of each, -1 where none is wanted. The device is done on return.

        `on_layer(layer)` is called in this thread when K and V of `layer` of all chunks are in the cache (on a GPU: when the
        kernels that put them there are launched). Raises EngineError where a chunk has no tokens, tokens that the vocabulary
        lacks, positions beyond the model's, or blocks without room.
        """
        logits = self.logits(chunks, on_layer)
        wanting = [chunk for chunk in chunks if chunk.wants_token]
        if not wanting:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            return [-1] * len(chunks)
        positions = [chunk.context for chunk in wanting]
        tokens = iter(next_tokens(logits, [chunk.sampling for chunk in wanting], positions))
        return [next(tokens) if chunk.wants_token else -1 for chunk in chunks]

    def logits(self, chunks: Sequence[Chunk], on_layer: Callable[[int], None] | None = None) -> Tensor:
        """float32 (chunks that want a token, vocab_size): what `step` with the same arguments draws from. On a GPU the next
        pass overwrites it."""
        for chunk in chunks:
            self._check(chunk)
        with torch.inference_mode():
            if self._graphs and len(chunks) <= self._graphs.max_size and all(map(is_decode, chunks)):
                logits = self._graphs.logits(chunks)
                if on_layer is not None:
                    for layer in range(self.architecture.num_layers):
                        on_layer(layer)
                return logits
            batch = PackedBatch(self.cache, chunks, self._decode_attention)
            x = self.model(batch, on_layer)
            return self.model.logits(x[batch.last_rows])

    def _check(self, chunk: Chunk) -> None:
        num_tokens = chunk.context
        vocab_size, max_positions = self.architecture.vocab_size, self.architecture.max_positions
        if not chunk.token_ids:
            raise EngineError("a chunk without tokens: expected at least one")
        if num_tokens > max_positions:
            raise EngineError(f"a sequence of {num_tokens} tokens: the model's context has {max_positions}")
        if num_tokens > len(chunk.blocks) * self.cache.block_tokens:
            raise EngineError(f"a sequence of {num_tokens} tokens in {len(chunk.blocks)} blocks of {self.cache.block_tokens}")
        if min(chunk.token_ids) < 0 or max(chunk.token_ids) >= vocab_size:
            wrong = next(token for token in chunk.token_ids if not 0 <= token < vocab_size)
            raise EngineError(f"token id {wrong}: expected 0 to {vocab_size - 1}, the model's vocabulary")


def is_decode(chunk: Chunk) -> bool:
    return chunk.num_tokens == 1 and chunk.wants_token


def load_engine(
    executable: Executable,
    *,
    num_blocks: int,
    block_tokens: int,
    device: str,
    num_threads: int,
    parallelize: Callable[[Transformer], None] | None = None,
) -> Engine:
    """The engine of a model with a KV cache of `num_blocks` blocks of `block_tokens` tokens.

    `num_threads` (CPU) is torch's, for the whole process; 0 leaves it. `parallelize` may leave of the loaded model what this
    process is to compute: its cache then holds the KV heads that are left. Raises EngineError, before anything is allocated
    where the model does not fit.
    """
    target = parse_device(device)
    dtype = parse_dtype(executable.dtype, target)
    check_memory(executable.architecture, dtype, num_blocks * block_tokens, target)
    keep_freed_memory()
    if num_threads:
        torch.set_num_threads(num_threads)
    model = Transformer(executable.architecture, dtype, target)
    if executable.checkpoint:
        load_weights(model, executable.checkpoint)
    else:
        randomize_weights(model)
    if parallelize is not None:
        parallelize(model)
    first = model.layers[0]
    assert isinstance(first, Layer)
    num_kv_heads, head_dim = first.attention.num_kv_heads, executable.architecture.head_dim
    cache = PagedKVCache(len(model.layers), num_blocks, block_tokens, num_kv_heads, head_dim, dtype, target)
    return Engine(model, cache)
