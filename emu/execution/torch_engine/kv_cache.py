"""The KV cache of an engine: blocks of tokens that sequences hold in any order."""

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from emu.execution.torch_engine.errors import EngineError


class PagedKVCache:
    """`layers`: of each layer K and V, a tensor (2, num_blocks, block_tokens, num_kv_heads, head_dim).

    Token t of a sequence is in its block number t // block_tokens, at place t % block_tokens. Blocks may be taken and given
    back, and bytes read and written, from any thread; which thread uses which block is the callers' business.
    """

    def __init__(
        self,
        num_layers: int,
        num_blocks: int,
        block_tokens: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.num_blocks, self.block_tokens = num_blocks, block_tokens
        shape = (2, num_blocks, block_tokens, num_kv_heads, head_dim)
        # Written, so that the memory is there before the first step.
        self.layers = [torch.empty(shape, dtype=dtype, device=device).zero_() for _ in range(num_layers)]
        # K and V of each layer by token: (num_blocks x block_tokens, num_kv_heads, head_dim)
        self._slots = [layer.flatten(1, 2).unbind() for layer in self.layers]
        self._token_bytes = num_kv_heads * head_dim * dtype.itemsize
        self._free = list(range(num_blocks - 1, -1, -1))
        self._is_free = [True] * num_blocks
        self._released = threading.Condition()

    @property
    def num_free_blocks(self) -> int:
        return len(self._free)

    def bytes_of(self, num_tokens: int) -> int:
        """Bytes of K and V of `num_tokens` tokens over all layers."""
        return 2 * len(self.layers) * num_tokens * self._token_bytes

    def allocate(self, num_blocks: int, timeout_s: float = 5.0) -> list[int]:
        """Take `num_blocks` blocks, waiting up to `timeout_s` for other threads to release some. Raises EngineError."""
        deadline_s = time.monotonic() + timeout_s
        with self._released:
            while len(self._free) < num_blocks:
                left_s = deadline_s - time.monotonic()
                if num_blocks > self.num_blocks or left_s <= 0:
                    had = f"{len(self._free)} of {self.num_blocks} are free"
                    raise EngineError(f"no room for {num_blocks} KV blocks: {had} after {timeout_s:g} s")
                self._released.wait(left_s)
            taken = [self._free.pop() for _ in range(num_blocks)]
            for block in taken:
                self._is_free[block] = False
        return taken

    def release(self, blocks: Sequence[int]) -> None:
        """Give blocks back. Raises EngineError where one is free already."""
        with self._released:
            for block in blocks:
                if self._is_free[block]:
                    raise EngineError(f"KV block {block} is released twice")
                self._is_free[block] = True
                self._free.append(block)
            self._released.notify_all()

    def write_tokens(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Put k and v (T, num_kv_heads, head_dim) into `slots` (T,): block x block_tokens + place in the block."""
        keys, values = self._slots[layer]
        keys.index_copy_(0, slots, k)
        values.index_copy_(0, slots, v)

    def gather(self, layer: int, blocks: Tensor) -> Tensor:
        """A copy of `blocks` (n,) in this order: (2, n x block_tokens, num_kv_heads, head_dim)."""
        return self.layers[layer].index_select(1, blocks).flatten(1, 2)

    def read(self, blocks: Sequence[int], num_tokens: int, start: int, out: np.ndarray) -> None:
        """Fill `out` (uint8) with bytes [start, start + len(out)) of a sequence's `num_tokens` tokens.

        Their order is that of a contiguous array (layers, K and V, tokens, num_kv_heads, head_dim). Raises ValueError where
        the range is not within it.
        """
        for place, indices, piece in self._pieces(blocks, num_tokens, start, torch.from_numpy(out)):
            if indices is None:
                piece.copy_(place)
            elif place.is_cuda:
                piece.copy_(place.index_select(0, indices))
            else:
                torch.index_select(place, 0, indices, out=piece)

    def write(self, blocks: Sequence[int], num_tokens: int, start: int, data: np.ndarray) -> None:
        """Put `data` (uint8) where `read` with the same arguments would take it from. Raises ValueError as `read` does."""
        on_device = torch.from_numpy(data).to(self.layers[0].device)
        for place, indices, piece in self._pieces(blocks, num_tokens, start, on_device):
            if indices is None:
                place.copy_(piece)
            elif place.is_cuda:
                place.index_copy_(0, indices, piece)
            else:
                place.numpy()[indices.numpy()] = piece.numpy()  # 30 times as fast as index_copy_, which goes byte by byte

    def _pieces(
        self, blocks: Sequence[int], num_tokens: int, start: int, data: Tensor
    ) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """Places in the cache and the pieces of `data` that belong there, in order: a part of one block (bytes), None and its
        piece; or all blocks of a layer's K or V (num_blocks, block bytes), indices of some of them and theirs (n, block bytes).
        """
        part_bytes, block_bytes = num_tokens * self._token_bytes, self.block_tokens * self._token_bytes
        end = start + len(data)
        if not 0 <= start <= end <= 2 * len(self.layers) * part_bytes or num_tokens > len(blocks) * self.block_tokens:
            raise ValueError(f"bytes {start} to {end} of {num_tokens} tokens in {len(blocks)} KV blocks")
        indices = torch.tensor(blocks, dtype=torch.int64).to(self.layers[0].device)
        at = start
        while at < end:
            number, offset = divmod(at, part_bytes)
            size = min(part_bytes - offset, end - at)
            block, offset = divmod(offset, block_bytes)
            part = self.layers[number // 2][number % 2].view(torch.uint8).view(self.num_blocks, block_bytes)
            if offset or size < block_bytes:
                size = min(size, block_bytes - offset)
                yield part[blocks[block], offset : offset + size], None, data[at - start :][:size]
            else:
                num_whole = size // block_bytes
                size = num_whole * block_bytes
                yield part, indices[block : block + num_whole], data[at - start :][:size].view(num_whole, block_bytes)
            at += size
