"""The tokens of one forward pass, packed one sequence after the other."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from emu.execution.torch_engine.attention import GatheredDecode, PromptAttention
from emu.execution.torch_engine.kv_cache import PagedKVCache
from emu.execution.torch_engine.sampling import GREEDY, Sampling


class Chunk(NamedTuple):
    """Consecutive tokens of one sequence that a pass runs: the last one of a decode, a prompt, a part of a prompt.

    `num_before` of the sequence's tokens are in the KV cache already: it is the position of the first of these. `blocks` are
    the sequence's KV blocks in order, with room for these tokens. `wants_token`: whether to draw the token that comes next.
    """

    token_ids: Sequence[int]
    num_before: int
    blocks: Sequence[int]
    wants_token: bool = True
    sampling: Sampling = GREEDY


class PackedBatch:
    """Chunks as a forward pass takes them: single tokens first, as one batch of decodes, and then the longer ones.

    `last_rows` (n,): the row of `token_ids` that holds the last token of each chunk that wants one, in the order given.
    """

    def __init__(self, chunks: Sequence[Chunk], cache: PagedKVCache, decode_attention: Callable = GatheredDecode) -> None:
        self._cache = cache
        order = sorted(range(len(chunks)), key=lambda index: len(chunks[index].token_ids) > 1)
        token_ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        last_row = [0] * len(chunks)
        for index in order:
            chunk = chunks[index]
            of_chunk = range(chunk.num_before, chunk.num_before + len(chunk.token_ids))
            token_ids += chunk.token_ids
            positions += of_chunk
            slots += slots_of(chunk.blocks, of_chunk, cache.block_tokens)
            last_row[index] = len(token_ids) - 1
        device = cache.layers[0].device
        self.token_ids, self.positions, self._slots = torch.tensor((token_ids, positions, slots)).to(device)
        last_rows = [row for row, chunk in zip(last_row, chunks, strict=True) if chunk.wants_token]
        self.last_rows = torch.tensor(last_rows, dtype=torch.int64).to(device)
        decodes = [chunk for chunk in chunks if len(chunk.token_ids) == 1]
        longer = [chunk for chunk in chunks if len(chunk.token_ids) > 1]
        self._num_decodes = len(decodes)
        if decodes:
            contexts = [chunk.num_before + 1 for chunk in decodes]
            self._decode = decode_attention(cache, contexts, [chunk.blocks for chunk in decodes])
        self._prompts = [PromptAttention(cache, c.num_before, len(c.token_ids), c.blocks) for c in longer]
        self._sizes = [len(chunk.token_ids) for chunk in longer]

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        self._cache.write_tokens(layer, self._slots, k, v)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        num = self._num_decodes
        outputs = [self._decode(layer, q[:num])] if num else []
        parts = zip(self._prompts, *(x[num:].split(self._sizes) for x in (q, k, v)), strict=True)
        outputs += [prompt(layer, *qkv) for prompt, *qkv in parts]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def slots_of(blocks: Sequence[int], positions: range, block_tokens: int) -> list[int]:
    """Where in the cache the tokens at these positions of a sequence are."""
    return [blocks[position // block_tokens] * block_tokens + position % block_tokens for position in positions]
