"""Whether the requests of a workload fit into memory: an estimate before they are made, and signs of life while they are."""

import sys
from time import perf_counter

import psutil

from emu.workload.workload import WorkloadError

BYTES_PER_REQUEST = 1_200  # of a virtual run: 0.9 to 1.1 kB measured from 50,000 to 100,000 requests, results written
LINE_EVERY_S = 10.0
MANY_REQUESTS = 1_000_000  # fewer are made in no time


def require_memory(key: str, num_requests: float, expected: str) -> None:
    """Raises WorkloadError where a run of so many requests needs more memory than is free here. `key` is what asks for them."""
    needed = num_requests * BYTES_PER_REQUEST
    free = psutil.virtual_memory().available
    if needed > free:
        raise WorkloadError(
            f"{key}: {num_requests:,.0f} requests need about {needed / 2**30:.1f} GiB of memory, of which "
            f"{free / 2**30:.1f} GiB are free; expected {expected}"
        )


class GenerationProgress:
    """Says on stderr how far a long preparation is: a line at most every LINE_EVERY_S seconds."""

    def __init__(self, interval_s: float = LINE_EVERY_S) -> None:
        self._interval_s = interval_s
        self._next_s = perf_counter() + interval_s

    def is_due(self) -> bool:
        """Whether it is time for a line, from which on the next interval counts."""
        if perf_counter() < self._next_s:
            return False
        self._next_s = perf_counter() + self._interval_s
        return True

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
