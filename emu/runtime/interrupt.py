"""Ctrl-C: once asks the run to end early, twice ends the process at once."""

import os
import signal
from collections.abc import Callable
from types import FrameType

import psutil

CAUSE = "Ctrl-C"
EXIT_CODE = 130  # the shell's code for a process that SIGINT ended


class Interrupt:
    """A context in which the first Ctrl-C sets `requested` and calls `on_request`, and the second kills.

    To be entered in the main thread, where Python handles signals. `num_requests` counts over all contexts of the process: a
    run may end by itself before it looks, and a sweep must not go on then.
    """

    num_requests = 0

    def __init__(self, on_request: Callable[[], None] = lambda: None) -> None:
        self.requested = False
        self._on_request = on_request

    def __enter__(self) -> "Interrupt":
        self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.requested:
            for child in psutil.Process().children(recursive=True):
                child.kill()
            os._exit(EXIT_CODE)
        self.requested = True
        Interrupt.num_requests += 1
        self._on_request()
