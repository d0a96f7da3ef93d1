"""How long something was going on."""

import time


class BusyTime:
    """A context that may be entered several times at once: the seconds in which somebody was in it."""

    def __init__(self) -> None:
        self.total_s = self.left_s = self._since_s = 0.0
        self._num_inside = 0

    def __enter__(self) -> None:
        if not self._num_inside:
            self._since_s = time.monotonic()
        self._num_inside += 1

    def __exit__(self, *exception: object) -> None:
        self._num_inside -= 1
        self.left_s = time.monotonic()
        if not self._num_inside:
            self.total_s += self.left_s - self._since_s
