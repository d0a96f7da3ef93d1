"""When the pieces of a payload come into being."""

import asyncio
from bisect import bisect_right
from dataclasses import dataclass
from typing import Protocol


class Production(Protocol):
    """What a source asks about the pieces of a payload that it holds, by number from 0."""

    async def until(self, piece: int, num_pieces: int) -> None:
        """Return once `piece` is there."""
        ...

    def num_produced(self, now_s: float, num_pieces: int) -> int:
        """How many pieces are there at `now_s` of the event loop's clock."""
        ...


@dataclass(frozen=True, slots=True)
class TimedProduction:
    """Of a machine that computes nothing: a piece at the end of each equal part of `from_s` to `until_s`.

    Times of the event loop's clock. Both in the past: all are there.
    """

    from_s: float = 0.0
    until_s: float = 0.0

    def due_s(self, piece: int, num_pieces: int) -> float:
        """When piece `piece` is there."""
        return self.from_s + (self.until_s - self.from_s) * (piece + 1) / num_pieces

    async def until(self, piece: int, num_pieces: int) -> None:
        wait_s = self.due_s(piece, num_pieces) - asyncio.get_running_loop().time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def num_produced(self, now_s: float, num_pieces: int) -> int:
        if now_s >= self.until_s:
            return num_pieces
        return bisect_right(range(num_pieces), now_s, key=lambda piece: self.due_s(piece, num_pieces))


class LiveProduction:
    """Of a machine that computes: as many pieces are there as it was last told, by `advance`, in the event loop."""

    def __init__(self) -> None:
        self._num_produced = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def advance(self, num_produced: int) -> None:
        """The first `num_produced` pieces are there."""
        self._num_produced = num_produced
        for piece, reached in [waiting for waiting in self._waiting if waiting[0] < num_produced]:
            self._waiting.remove((piece, reached))
            if not reached.done():  # it was cancelled
                reached.set_result(None)

    async def until(self, piece: int, num_pieces: int) -> None:
        if piece >= self._num_produced:
            reached = asyncio.get_running_loop().create_future()
            self._waiting.append((piece, reached))
            await reached

    def num_produced(self, now_s: float, num_pieces: int) -> int:
        return self._num_produced
