"""CUDA graphs of decode passes: one launch for a whole pass instead of some hundred, whose launching would take longer."""

from collections.abc import Sequence

import torch
from torch import Tensor

from emu.execution.torch_engine.chunk import Chunk
from emu.execution.torch_engine.kv_cache import PagedKVCache
from emu.execution.torch_engine.paged_decode import PagedDecode, decode_rows, padded_size
from emu.execution.torch_engine.transformer import Transformer

MAX_SIZE = 256  # sequences in the largest graph


class DecodePass:
    """A pass over one token of each of B sequences, by tensors that stay where they are from pass to pass."""

    def __init__(self, cache: PagedKVCache, rows: Tensor, tables: Tensor) -> None:
        self._cache = cache
        self.token_ids, self.positions, self._slots = rows
        self._attention = PagedDecode(cache, self.positions, self._slots, tables)

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        self._cache.write_tokens(layer, self._slots, k, v)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self._attention(layer, q)


class DecodeGraphs:
    """Decode passes of 1, 2, 4, 8, ... sequences, captured when this is made; a batch in between runs as the next larger.

    Capturing writes into the cache's first slot: to be made before the cache holds anything.
    """

    @torch.inference_mode()
    def __init__(self, model: Transformer, cache: PagedKVCache, max_blocks: int) -> None:
        self._model, self._cache = model, cache
        device = cache.layers[0].device
        self.max_size = min(MAX_SIZE, padded_size(cache.num_blocks))
        self._tables = torch.zeros(self.max_size, max_blocks, dtype=torch.int32, device=device)
        self._rows: dict[int, Tensor] = {}  # by size: the graph's inputs and its output
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        pool = None
        with torch.cuda.device(device):
            for exponent in reversed(range(self.max_size.bit_length())):  # the largest first: the others fit its memory
                size = 1 << exponent
                self._rows[size] = torch.zeros(3, size, dtype=torch.int64, device=device)
                # Compiles, and sets up libraries, on a stream of its own as capturing wants it.
                stream = torch.cuda.Stream()
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    for _ in range(2):
                        self._run(size)
                torch.cuda.current_stream().wait_stream(stream)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                    logits = self._run(size)
                pool = graph.pool()
                self._graphs[size] = graph, logits

    def logits(self, chunks: Sequence[Chunk]) -> Tensor:
        """float32 (chunks, V), overwritten by the next call. Each chunk is one token."""
        size = padded_size(len(chunks))
        rows, tables = decode_rows(chunks, size, self._cache.block_tokens)
        self._rows[size].copy_(rows)
        self._tables[:size, : tables.shape[1]].copy_(tables)
        graph, logits = self._graphs[size]
        with torch.cuda.device(logits.device):
            graph.replay()
        return logits[: len(chunks)]

    def _run(self, size: int) -> Tensor:
        return self._model.logits(self._model(DecodePass(self._cache, self._rows[size], self._tables[:size])))
