"""The run's clock: seconds since its start, on every node of the cluster."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

NUM_PINGS = 20


class WallClock:
    """Emulated seconds since `start`, an instant of the reference host's monotonic clock.

    `dilation` is wall seconds per emulated second: 2 is twice as slow as real. `offset_s` is the reference clock less this
    host's; `error_s` bounds what is not known of it.
    """

    def __init__(self, start: float, dilation: float, offset_s: float = 0.0, error_s: float = 0.0) -> None:
        self._local_start = start - offset_s
        self.dilation = dilation
        self.error_s = error_s

    def now_s(self) -> float:
        return self.emulated_s(time.monotonic())

    def local(self, at_s: float) -> float:
        """The instant of this host's monotonic clock (which is asyncio's) at emulated time `at_s`."""
        return self._local_start + at_s * self.dilation

    def emulated_s(self, local: float) -> float:
        """Emulated time at an instant of this host's monotonic clock."""
        return (local - self._local_start) / self.dilation


def host_identity() -> str:
    """The same on two processes exactly if they share a monotonic clock: the id of the kernel's boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


async def estimate_offset(ping: Callable[[], Awaitable[float]], num_pings: int = NUM_PINGS) -> tuple[float, float]:
    """Offset and error, in seconds, of a remote monotonic clock against this one: from the fastest of `num_pings`.

    `ping()` returns the remote clock's reading. It was read at some time within the round trip: the middle is the estimate
    and half of the trip its bound (Cristian's algorithm).
    """
    best = (0.0, float("inf"))
    for _ in range(num_pings):
        sent = time.monotonic()
        remote = await ping()
        received = time.monotonic()
        best = min(best, (remote - (sent + received) / 2, (received - sent) / 2), key=lambda estimate: estimate[1])
        await asyncio.sleep(0)
    return best
