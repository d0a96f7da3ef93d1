"""The KV cache of one sequence as bytes, for the transfers."""

import threading

import numpy as np
import torch

from emu.execution.torch_engine.kv_cache import PagedKVCache

# Of each floating-point type: its bits as an integer type, those of sign and mantissa, and the exponent of [0.25, 0.5).
FINITE_BITS = {
    torch.float32: (np.uint32, 0x807FFFFF, 0x3E800000),
    torch.bfloat16: (np.uint16, 0x807F, 0x3E80),
    torch.float16: (np.uint16, 0x83FF, 0x3400),
}


class SequenceCache:
    """Bytes of `num_tokens` tokens in `blocks` of `cache`, in the order layers x (K, V) x tokens x heads x head dimension.

    Threads of the transfers read and write it. What an emulated machine sends are bytes that mean nothing, many of them no
    numbers: with `makes_finite` the exponent of each value written is replaced, so that it is one of magnitude 0.25 to 0.5
    with the sign and the mantissa that came.
    """

    def __init__(self, cache: PagedKVCache, blocks: list[int], num_tokens: int, makes_finite: bool = False) -> None:
        self._cache = cache
        self._blocks = blocks
        self._num_tokens = num_tokens
        self._makes_finite = makes_finite
        self._is_closed = False
        self._writing = threading.Lock()

    def read(self, start: int, out: np.ndarray) -> None:
        """Copy bytes [start, start + len(out)) into `out` (uint8)."""
        self._cache.read(self._blocks, self._num_tokens, start, out)

    def write(self, start: int, data: np.ndarray) -> None:
        """Set bytes [start, start + len(data)), whole values, to `data` (uint8); nothing once it is closed."""
        if self._makes_finite:
            bits, kept, exponent = FINITE_BITS[self._cache.layers[0].dtype]
            data = (data.view(bits) & bits(kept) | bits(exponent)).view(np.uint8)
        with self._writing:
            if not self._is_closed:
                self._cache.write(self._blocks, self._num_tokens, start, data)

    def close(self) -> None:
        """Write no more: the blocks are about to be somebody else's."""
        with self._writing:
            self._is_closed = True
