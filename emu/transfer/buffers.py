"""Memory that payloads pass through: allocated, touched and registered once, then reused."""

import asyncio

import numpy as np

ALIGNMENT = 4096  # a page: what registers memory does so by pages


class Buffers:
    """`num_buffers` buffers of `buffer_bytes` each, in one piece of memory. They are handed out in the order of asking."""

    def __init__(self, num_buffers: int, buffer_bytes: int) -> None:
        self.num_buffers, self.buffer_bytes = num_buffers, buffer_bytes
        raw = np.empty(num_buffers * buffer_bytes + ALIGNMENT, dtype=np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        self.memory = raw[start : start + num_buffers * buffer_bytes]
        self._free: asyncio.Queue[int] = asyncio.Queue()
        for index in range(num_buffers):
            self._free.put_nowait(index)

    async def acquire(self) -> int:
        """The index of a buffer, once one is free."""
        return await self._free.get()

    def release(self, index: int) -> None:
        """Nobody reads or writes the buffer any more."""
        self._free.put_nowait(index)

    @property
    def num_free(self) -> int:
        return self._free.qsize()

    def touch(self, num_bytes: int) -> None:
        """Map the pages of the first `num_bytes` bytes of each buffer: at first use that costs 5 to 25 times a copy."""
        for index in range(self.num_buffers):
            self.view(index, min(num_bytes, self.buffer_bytes))[::ALIGNMENT] = 0

    def view(self, index: int, num_bytes: int) -> np.ndarray:
        """The first `num_bytes` bytes of a buffer (uint8)."""
        start = index * self.buffer_bytes
        return self.memory[start : start + num_bytes]

    # What differs where a transport's memory is not this one.

    @property
    def address(self) -> int:
        """Where the first buffer is for a transport; the others follow it."""
        return self.memory.ctypes.data

    def upload(self, index: int, num_bytes: int) -> None:
        """Let a transport send what has been written to the `view` of a buffer."""

    def download(self, index: int, num_bytes: int) -> None:
        """Let the `view` of a buffer show what a transport has received."""

    def close(self) -> None:
        """Let go of what is not ordinary memory."""
