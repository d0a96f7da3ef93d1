"""Which starts of requests are over, as far as one machine has been told."""

from typing import Protocol, TypeVar

from emu.core.facts import StaleDropped
from emu.core.message import Message


class Attempt(Protocol):
    """What a machine keeps of one start of a request."""

    request_id: int
    attempt: int


A = TypeVar("A", bound=Attempt)


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

    def is_over(self, task: Attempt | None) -> bool:
        return task is not None and self._newest.get(task.request_id, 0) >= task.attempt

    def is_stale(self, event: Message, actions: list[Message]) -> bool:
        """Whether the attempt that this event would begin here is over."""
        request_id, attempt = event[:2]
        is_stale: bool = self._newest.get(request_id, 0) >= attempt
        if is_stale:
            self._drop(event, actions)
        return is_stale

    def current(self, place: dict[int, A], event: Message, actions: list[Message]) -> A | None:
        """The task that the event, which begins with request and attempt, is about; in `place` unless its attempt is over."""
        task = place.get(event[0])
        if task is None or task.attempt != event[1]:
            self._drop(event, actions)
            return None
        return task

    @staticmethod
    def _drop(event: Message, actions: list[Message]) -> None:
        actions.append(StaleDropped(event[0], event[1], type(event).__name__))
