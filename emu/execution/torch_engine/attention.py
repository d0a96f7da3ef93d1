"""How tokens attend to what is in the KV cache: those of a prompt, of a later part of one, and the decodes of a batch."""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from emu.execution.torch_engine.chunk import Chunk
from emu.execution.torch_engine.kv_cache import PagedKVCache


class DecodeAttention(Protocol):
    """One token of each of B sequences, already in the cache: q (B, H, D), a row a sequence. Returns (B, H, D)."""

    def __call__(self, layer: int, q: Tensor) -> Tensor: ...


class PromptAttention:
    """Consecutive tokens of one sequence, with or without others before them in the cache.

    With none before them their own K and V are all there is: nothing is gathered and no mask is made.
    """

    def __init__(self, cache: PagedKVCache, chunk: Chunk) -> None:
        self._cache = cache
        self._context = chunk.context
        self._is_first = not chunk.num_before
        if self._is_first:
            return
        device = cache.layers[0].device
        self._blocks = torch.tensor(chunk.used_blocks(cache.block_tokens), dtype=torch.int64).to(device)
        # Token i sees the context up to itself. GPU kernels know this shape; for a CPU the mask is made, once for all layers.
        if device.type == "cpu":
            self._mask = torch.ones(chunk.num_tokens, chunk.context, dtype=torch.bool).tril_(chunk.num_before)
        else:
            from torch.nn.attention.bias import causal_lower_right  # brings torch's compiler: a second

            self._mask = causal_lower_right(chunk.num_tokens, chunk.context)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (T, H, D), k and v (T, K, D) of these tokens, already in the cache. Returns (T, H, D)."""
        q = q.transpose(0, 1)[None]  # (1, H, T, D)
        if self._is_first:
            k, v = k.transpose(0, 1)[None], v.transpose(0, 1)[None]  # (1, K, T, D)
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            kv = self._cache.gather(layer, self._blocks)[:, : self._context]  # (2, context, K, D)
            k, v = kv.transpose(1, 2)[:, None]  # (1, K, context, D)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=self._mask, enable_gqa=True)
        return out[0].transpose(0, 1)


class GatheredDecode:
    """Decodes whose blocks are gathered, sequence by sequence, into one place: the time follows the tokens attended to.

    One sequence at a time because its K and V then stay in the processor's cache: 2 to 5 times faster than to gather those of
    the whole batch first (32 sequences of 1024 tokens, one core of an AMD EPYC). One place because fresh memory is mapped page
    by page: another 2 to 3 times.
    """

    def __init__(self, cache: PagedKVCache, chunks: Sequence[Chunk]) -> None:
        self._cache = cache
        kv = cache.layers[0]
        used = [chunk.used_blocks(cache.block_tokens) for chunk in chunks]
        room = kv.new_empty(2 * max(map(len, used)) * kv[0, 0].numel())
        self._rows = []
        for chunk, own in zip(chunks, used, strict=True):
            blocks = torch.tensor(own, dtype=torch.int64).to(kv.device)
            gathered = room[: 2 * len(own) * kv[0, 0].numel()].view(2, len(own), *kv.shape[2:])
            k, v = gathered.flatten(1, 2)[:, : chunk.context].transpose(1, 2)[:, None]  # (1, K, context, D)
            self._rows.append((blocks, gathered, k, v))

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        kv = self._cache.layers[layer]
        # The heads that share a KV head are as many queries to it: (B, 1, K, H/K, D).
        queries = q.reshape(len(q), 1, kv.shape[-2], -1, kv.shape[-1])
        outputs = []
        for query, (blocks, gathered, k, v) in zip(queries, self._rows, strict=True):
            torch.index_select(kv, 1, blocks, out=gathered)
            outputs.append(F.scaled_dot_product_attention(query, k, v))
        return torch.cat(outputs).view(q.shape)
