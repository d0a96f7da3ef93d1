"""What an engine hands to a transfer: the KV cache of one sequence, as bytes."""

from typing import Any, Protocol

import numpy as np


class KVBytes(Protocol):
    """The KV cache of one sequence as bytes, in the order of its payload. Called in threads of the transfer."""

    def read(self, start: int, out: "np.ndarray[Any, Any]") -> None:
        """Copy bytes [start, start + len(out)) into `out` (uint8)."""
        ...

    def write(self, start: int, data: "np.ndarray[Any, Any]") -> None:
        """Set bytes [start, start + len(data)) to `data` (uint8)."""
        ...
