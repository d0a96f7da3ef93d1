"""A thread in which the steps of an engine run, beside an event loop that must not wait for them."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class StepThread:
    """Runs one step after the other. To be made, and called, in the event loop that is told of their ends.

    A queue and `call_soon_threadsafe` instead of an executor and its futures: half the time between two steps, which is part
    of every step.
    """

    def __init__(self, name: str = "engine") -> None:
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def start(self, step: Callable[[], T], on_end: Callable[[T | Exception, float], None]) -> None:
        """Have `step` called in the thread, and then, in the event loop, `on_end` with what it returned or raised and with the
        `time.monotonic()` of its end."""

        def work() -> None:
            result: T | Exception
            try:
                result = step()
            except Exception as error:
                result = error
            self._loop.call_soon_threadsafe(on_end, result, time.monotonic())

        self._work.put(work)

    async def run(self, step: Callable[[], T]) -> T:
        """What `step`, called in the thread, returns or raises."""
        ended: asyncio.Future[T] = self._loop.create_future()

        def on_end(result: T | Exception, end_s: float) -> None:
            if ended.cancelled():
                return
            if isinstance(result, Exception):
                ended.set_exception(result)
            else:
                ended.set_result(result)

        self.start(step, on_end)
        return await ended

    def close(self) -> None:
        """End the thread after the step that it is in."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
