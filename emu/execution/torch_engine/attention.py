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
    """Decodes whose blocks are gathered, sequence by sequence: the time follows the tokens attended to.

    One sequence at a time because its K and V then stay in the processor's cache: 2 to 5 times faster than to gather those of
    the whole batch first (32 sequences of 1024 tokens, one core of an AMD EPYC).
    """

    def __init__(self, cache: PagedKVCache, chunks: Sequence[Chunk]) -> None:
        self._cache = cache
        self._contexts = [chunk.context for chunk in chunks]
        used = [chunk.used_blocks(cache.block_tokens) for chunk in chunks]
        blocks = torch.tensor([block for of_sequence in used for block in of_sequence], dtype=torch.int64)
        self._blocks = blocks.to(cache.layers[0].device).split([len(of_sequence) for of_sequence in used])

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        num_kv_heads, head_dim = self._cache.layers[layer].shape[-2:]
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        # The heads that share a KV head are as many queries to it: (B, 1, K, H/K, D).
        q = q.reshape(len(q), 1, num_kv_heads, -1, head_dim)
        for row, (context, blocks) in enumerate(zip(self._contexts, self._blocks, strict=True)):
            kv = self._cache.gather(layer, blocks)[:, :context]  # (2, context, K, D)
            k, v = kv.transpose(1, 2)[:, None]  # (1, K, context, D)
            out[row] = F.scaled_dot_product_attention(q[row], k, v).view(-1, head_dim)
        return out
