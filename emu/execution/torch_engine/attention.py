"""How the tokens of a pass attend to what is in the KV cache: a prompt, a later part of one, the decodes of a batch."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

from emu.execution.torch_engine.kv_cache import PagedKVCache


class PromptAttention:
    """`num_tokens` consecutive tokens of one sequence, `num_before` of which are in `blocks` already.

    With nothing before them their own K and V are all there is: nothing is gathered and no mask is made.
    """

    def __init__(self, cache: PagedKVCache, num_before: int, num_tokens: int, blocks: Sequence[int]) -> None:
        self._cache = cache
        self._context = num_before + num_tokens
        self._is_first = not num_before
        if self._is_first:
            return
        device = cache.layers[0].device
        used = blocks[: -(-self._context // cache.block_tokens)]
        self._blocks = torch.tensor(used, dtype=torch.int64, device=device)
        # Token i sees the context up to itself. GPU kernels know this shape; for a CPU the mask is made, once for all layers.
        if device.type == "cpu":
            self._mask = torch.ones(num_tokens, self._context, dtype=torch.bool).tril_(num_before)
        else:
            self._mask = causal_lower_right(num_tokens, self._context)

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
    """One token of each sequence, on any device: its blocks are gathered, sequence by sequence.

    The time then follows the tokens attended to, whatever the longest of the batch. One sequence at a time because its K and
    V then stay in the processor's cache: 2 to 5 times faster than gathering the whole batch's first (32 sequences, 1024
    tokens each, one core of an AMD EPYC).
    """

    def __init__(self, cache: PagedKVCache, contexts: Sequence[int], blocks: Sequence[Sequence[int]]) -> None:
        self._cache = cache
        self._contexts = contexts
        nums_blocks = [-(-context // cache.block_tokens) for context in contexts]
        used = [block for of_sequence, num in zip(blocks, nums_blocks, strict=True) for block in of_sequence[:num]]
        self._blocks = torch.tensor(used, dtype=torch.int64, device=cache.layers[0].device).split(nums_blocks)

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        """q (B, H, D): a row a sequence. Returns (B, H, D)."""
        num_kv_heads, head_dim = self._cache.layers[layer].shape[-2:]
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        # The heads that share a KV head are as many queries to it: (B, 1, K, H/K, D).
        q = q.reshape(len(q), 1, num_kv_heads, -1, head_dim)
        for row, (context, blocks) in enumerate(zip(self._contexts, self._blocks, strict=True)):
            kv = self._cache.gather(layer, blocks)[:, :context]  # (2, context, K, D)
            k, v = kv.transpose(1, 2)[:, None]  # (1, K, context, D)
            out[row] = F.scaled_dot_product_attention(q[row], k, v).view(-1, head_dim)
        return out
