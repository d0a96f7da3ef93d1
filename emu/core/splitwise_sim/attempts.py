"""Which starts of requests are over, as far as one machine has been told."""

from emu.core.facts import DropStale
from emu.core.splitwise_sim.task import Task


class Attempts:
    """Messages of attempts that were called off are stale: they are dropped, and that is told."""

    def __init__(self) -> None:
        self._newest: dict[int, int] = {}  # request -> newest attempt that was called off

    def __bool__(self) -> bool:
        return bool(self._newest)

    def call_off(self, request_id: int, attempt: int) -> bool:
        """Whether an attempt that was not over until now is."""
        if self._newest.get(request_id, 0) >= attempt:
            return False
        self._newest[request_id] = attempt
        return True

    def is_over(self, task: Task | None) -> bool:
        return task is not None and self._newest.get(task.request_id, 0) >= task.attempt

    def is_stale(self, event: tuple, actions: list[tuple]) -> bool:
        """Whether the attempt that this event would begin here is over."""
        is_stale = self._newest.get(event.request_id, 0) >= event.attempt
        if is_stale:
            self._drop(event, actions)
        return is_stale

    def current(self, place: dict[int, Task], event: tuple, actions: list[tuple]) -> Task | None:
        """The task that the event is about, which is in `place` unless its attempt is over."""
        task = place.get(event.request_id)
        if task is None or task.attempt != event.attempt:
            self._drop(event, actions)
            return None
        return task

    @staticmethod
    def _drop(event: tuple, actions: list[tuple]) -> None:
        actions.append(DropStale(event.request_id, event.attempt, type(event).__name__))
