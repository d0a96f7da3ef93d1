"""A thread for what takes long beside an event loop: copies and checksums."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
NICENESS = 10  # after the control plane, the event loop's thread
INLINE_BYTES = 64 << 10  # done in 10 us, where handing over to a thread and back takes 100


class Worker:
    """Runs what it is given in one thread, one after the other. numpy and xxhash let other threads run meanwhile."""

    def __init__(self, name: str) -> None:
        self._threads = ThreadPoolExecutor(1, name, give_way)

    async def run(self, num_bytes: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work`, which reads or writes so many bytes."""
        if num_bytes <= INLINE_BYTES:
            return work(*args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args, **kwargs))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def give_way() -> None:
    """Let the calling thread, and those that it starts, run after the others of the process."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
