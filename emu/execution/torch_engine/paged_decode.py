"""Decodes on a GPU: K and V are read where they are in the cache, and no shape depends on the lengths of the sequences, so that
a CUDA graph can hold the pass."""

import inspect
from collections.abc import Callable, Sequence
from functools import cache as cached

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import varlen
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from emu.execution.torch_engine.chunk import Chunk
from emu.execution.torch_engine.kv_cache import PagedKVCache

VARLEN_BLOCK_TOKENS = 256  # FlashAttention 2, as in torch, takes pages of a multiple of so many tokens
FLEX_QUERY_BLOCK = 128  # flex attention's unit of queries; a decode has one


class PagedDecode:
    """The attention of one token of each of B sequences, the tokens already in the cache.

    positions (B,) int64: of the token in its sequence. slots (B,) int64: where in the cache it is. tables (B, W) int32: the
    sequence's blocks in order; what comes after those in use is not read.
    """

    def __init__(self, cache: PagedKVCache, positions: Tensor, slots: Tensor, tables: Tensor) -> None:
        self._cache = cache
        self._tables = tables
        self._size = len(positions)
        self._attend = self._varlen if uses_varlen(cache) else self._flex
        if uses_varlen(cache):
            self._contexts = (positions + 1).int()
            self._starts = torch.arange(self._size + 1, dtype=torch.int32, device=positions.device)
        else:
            self._mask = block_mask(cache, positions, slots, tables)

    @classmethod
    def of(cls, cache: PagedKVCache, chunks: Sequence[Chunk], max_blocks: int) -> "PagedDecode":
        """For a pass that is in no graph. It has as many rows as one in a graph would, so that no new shape is compiled."""
        device = cache.layers[0].device
        rows, tables = decode_rows(chunks, padded_size(len(chunks)), cache.block_tokens)
        _, positions, slots = rows.to(device)
        return cls(cache, positions, slots, F.pad(tables, (0, max_blocks - tables.shape[1])).to(device))

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        """q (B, H, D), a row a sequence, or less rows where those at the end do not count. Returns the same shape."""
        num_rows = len(q)
        return self._attend(layer, F.pad(q, (0, 0, 0, 0, 0, self._size - num_rows)))[:num_rows]

    def _flex(self, layer: int, q: Tensor) -> Tensor:
        # The whole cache is one sequence, (1, K, slots, D), of which each query visits the blocks in its table.
        k, v = (x.transpose(0, 1)[None] for x in self._cache.layers[layer].flatten(1, 2))
        return compiled_flex_attention()(q[:, :, None], k, v, block_mask=self._mask, enable_gqa=True)[:, :, 0]

    def _varlen(self, layer: int, q: Tensor) -> Tensor:
        k, v = self._cache.layers[layer]  # (blocks, block_tokens, K, D)
        return varlen.varlen_attn(  # type: ignore[return-value]  # a pair only with return_aux
            q,
            k,
            v,
            self._starts,
            self._starts,  # without effect beside a block table and seqused_k, but the kernel wants one
            1,
            self._tables.shape[1] * self._cache.block_tokens,
            enable_gqa=True,
            seqused_k=self._contexts,
            block_table=self._tables,
        )


def block_mask(cache: PagedKVCache, positions: Tensor, slots: Tensor, tables: Tensor) -> BlockMask:
    """Which blocks of the cache each query visits, and which of their slots it sees."""
    block_tokens = cache.block_tokens

    def is_in_context(b: Tensor, h: Tensor, q: Tensor, slot: Tensor) -> Tensor:
        # Of the blocks in a table only the last, which holds the query's own token, has anything behind the context.
        return (slot // block_tokens != slots[b] // block_tokens) | (slot <= slots[b])

    # None of them as "full" blocks: the kernel would share those out by the size of the whole cache.
    return BlockMask.from_kv_blocks(
        (positions // block_tokens + 1).int()[:, None, None],
        tables[:, None, None],
        BLOCK_SIZE=(FLEX_QUERY_BLOCK, block_tokens),
        mask_mod=is_in_context,
        seq_lengths=(1, cache.num_blocks * block_tokens),
        compute_q_blocks=False,
    )


def decode_rows(chunks: Sequence[Chunk], size: int, block_tokens: int) -> tuple[Tensor, Tensor]:
    """Token ids, positions and slots (3, size) int64, and block tables (size, most blocks in use) int32, on the CPU.

    Rows beyond the chunks repeat the one with the shortest context: they write what it writes, where it does.
    """
    rows = [*chunks, *[min(chunks, key=lambda chunk: chunk.context)] * (size - len(chunks))]
    used = [chunk.used_blocks(block_tokens) for chunk in rows]
    width = max(map(len, used))
    token_ids, slots = [chunk.token_ids[0] for chunk in rows], [chunk.slots(block_tokens)[0] for chunk in rows]
    tables = torch.tensor([[*blocks, *[0] * (width - len(blocks))] for blocks in used], dtype=torch.int32)
    return torch.tensor((token_ids, [chunk.num_before for chunk in rows], slots)), tables


def padded_size(num_rows: int) -> int:
    """The least power of two that is not below."""
    return 1 << (num_rows - 1).bit_length()


def uses_varlen(cache: PagedKVCache) -> bool:
    """Whether torch's varlen attention can read this cache by block tables. Flex attention, which is compiled, reads any."""
    kv = cache.layers[0]
    has_tables = "block_table" in inspect.signature(varlen.varlen_attn).parameters
    return has_tables and kv.is_cuda and kv.dtype != torch.float32 and cache.block_tokens % VARLEN_BLOCK_TOKENS == 0


@cached
def compiled_flex_attention() -> Callable[..., Tensor]:
    torch._dynamo.config.recompile_limit = 64  # a compilation a batch size, of which the default would allow 8
    return torch.compile(flex_attention, dynamic=False, fullgraph=True)
