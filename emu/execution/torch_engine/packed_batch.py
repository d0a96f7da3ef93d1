"""The tokens of one forward pass, packed one sequence after the other."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from emu.execution.torch_engine.attention import DecodeAttention, PromptAttention
from emu.execution.torch_engine.chunk import Chunk
from emu.execution.torch_engine.kv_cache import PagedKVCache


class PackedBatch:
    """Chunks as a forward pass takes them: single tokens first, as one batch of decodes, and then the longer ones.

    `last_rows` (n,): the row of `token_ids` that holds the last token of each chunk that wants one, in the order given.
    """

    def __init__(
        self,
        cache: PagedKVCache,
        chunks: Sequence[Chunk],
        decode_attention: Callable[[PagedKVCache, Sequence[Chunk]], DecodeAttention],
    ) -> None:
        self._cache = cache
        token_ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        last_row = [0] * len(chunks)
        for index in sorted(range(len(chunks)), key=lambda index: chunks[index].num_tokens > 1):
            chunk = chunks[index]
            token_ids += chunk.token_ids
            positions += range(chunk.num_before, chunk.context)
            slots += chunk.slots(cache.block_tokens)
            last_row[index] = len(token_ids) - 1
        device = cache.layers[0].device
        self.token_ids, self.positions, self._slots = torch.tensor((token_ids, positions, slots)).to(device)
        last_rows = [row for row, chunk in zip(last_row, chunks, strict=True) if chunk.wants_token]
        self.last_rows = torch.tensor(last_rows, dtype=torch.int64).to(device)
        decodes = [chunk for chunk in chunks if chunk.num_tokens == 1]
        longer = [chunk for chunk in chunks if chunk.num_tokens > 1]
        self._num_decodes = len(decodes)
        self._decode = decode_attention(cache, decodes) if decodes else None
        self._prompts = [PromptAttention(cache, chunk) for chunk in longer]
        self._sizes = [chunk.num_tokens for chunk in longer]

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        self._cache.write_tokens(layer, self._slots, k, v)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        num = self._num_decodes
        outputs = [] if self._decode is None else [self._decode(layer, q[:num])]
        parts = zip(self._prompts, *(x[num:].split(self._sizes) for x in (q, k, v)), strict=True)
        outputs += [prompt(layer, *qkv) for prompt, *qkv in parts]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
