"""Rows of numbers that grow by one at a time, packed: a sixth of the memory of tuples, and cheaper to append to than arrays."""

from struct import Struct

import numpy as np


class RowFormat:
    """The columns of a row by their names: `ints` of 32 bits, then `longs` and `floats` of 64.

    A row is appended to a bytearray by `packed += format.pack(*values)`; `unpack` shows them as
    a structured array, after which nothing can be appended.
    """

    __slots__ = ("_dtype", "pack")

    def __init__(self, ints: str, floats: str = "", longs: str = "") -> None:
        columns = ((ints, "i", np.int32), (longs, "q", np.int64), (floats, "d", np.float64))
        self.pack = Struct("=" + "".join(f"{len(names.split())}{code}" for names, code, _ in columns)).pack
        self._dtype = np.dtype([(name, dtype) for names, _, dtype in columns for name in names.split()])

    def unpack(self, packed: bytearray) -> np.ndarray:
        return np.frombuffer(packed, self._dtype)

    def empty(self, num_rows: int) -> np.ndarray:
        """Rows to be filled."""
        return np.empty(num_rows, self._dtype)
