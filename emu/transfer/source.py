"""The source's side of transfers: what a machine holds, and who is sent it."""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from emu.transfer.frames import Frame
from emu.transfer.payload import Payload
from emu.transfer.production import Production, TimedProduction
from emu.transfer.settings import TransferSettings
from emu.transfer.transport import Ticket, Transport
from emu.transfer.worker import Worker

Key = tuple[int, int]  # request, attempt
log = logging.getLogger(__name__)
AT_ONCE = TimedProduction()


class Held(NamedTuple):
    """A payload that can be pulled, and when its pieces come into being."""

    payload: Payload
    production: Production


class Published(NamedTuple):
    """A message that its destination may read."""

    buffer: int
    ticket: Ticket
    deadline: asyncio.TimerHandle


class Source:
    """Sends what it holds to those who pull it, in messages of whole pieces as soon as they are there.

    A message has at least `min_message_bytes` and at most `max_message_bytes` bytes, the last of a pull fewer: of small pieces
    it takes several, large ones it cuts. Each waits in a buffer until its destination is through with it; one that is not for
    twice `timeout_s` is sent no more of that pull.
    """

    def __init__(self, transport: Transport, settings: TransferSettings, send: Callable[..., None]) -> None:
        self._transport = transport
        self._settings = settings
        self._send = send
        self._worker = Worker("kv-fill")
        self._held: dict[Key, Held] = {}
        self._serving: dict[tuple[int, int], tuple[Key, asyncio.Task]] = {}  # by peer and its pull
        self._published: dict[tuple[int, int, int], Published] = {}  # by peer, its pull and number of the message
        self._withdrawals: set[asyncio.Task] = set()

    @property
    def num_held(self) -> int:
        return len(self._held)

    def hold(self, key: Key, payload: Payload, production: Production = AT_ONCE) -> None:
        """Let this be pulled until `free`."""
        self._held[key] = Held(payload, production)

    def free(self, key: Key) -> None:
        """Drop a held payload, and stop sending it; nothing if there is none."""
        self._held.pop(key, None)
        for peer, pull in [pull for pull, (served, _) in self._serving.items() if served == key]:
            self._stop(peer, pull)
            self._send(peer, Frame.GONE, pull)

    # --- what destinations say ----------------------------------------------------------------------------------------

    def on_pull(self, peer: int, pull: int, request_id: int, attempt: int, start: int, stop: int) -> None:
        """`peer` wants bytes [start, stop) of a payload."""
        held = self._held.get((request_id, attempt))
        if held is None or not 0 <= start < stop <= held.payload.num_bytes:
            self._send(peer, Frame.GONE, pull)
            return
        task = asyncio.ensure_future(self._serve(peer, pull, (request_id, attempt), held, start, stop))
        self._serving[peer, pull] = (request_id, attempt), task
        task.add_done_callback(lambda _: self._serving.pop((peer, pull), None))

    def on_done(self, peer: int, pull: int, number: int) -> None:
        """`peer` is through with a message."""
        published = self._published.pop((peer, pull, number), None)
        if published is not None:
            self._withdraw(peer, published)

    def on_stop(self, peer: int, pull: int) -> None:
        """`peer` wants no more of this pull."""
        self._stop(peer, pull)
        for _, _, number in [message for message in self._published if message[:2] == (peer, pull)]:
            self.on_done(peer, pull, number)

    def on_peer_lost(self, peer: int) -> None:
        """Nobody is left to send it to."""
        for pull in {pull for other, pull, *_ in (*self._serving, *self._published) if other == peer}:
            self.on_stop(peer, pull)

    # --- sending ------------------------------------------------------------------------------------------------------

    async def _serve(self, peer: int, pull: int, key: Key, held: Held, start: int, stop: int) -> None:
        number = 0
        while start < stop:
            end = await self._next_end(held, start, stop)
            buffer = await self._transport.send_buffers.acquire()
            try:
                checksum = await self._worker.run(end - start, self._fill, held.payload, start, end, buffer)
                ticket = self._transport.publish(peer, buffer, end - start)
            except asyncio.CancelledError:
                self._worker_is_through_with(buffer)
                raise
            except Exception:
                log.exception("request %d cannot be sent to machine %d", key[0], peer)
                self._transport.send_buffers.release(buffer)
                self._send(peer, Frame.GONE, pull)
                return
            # A destination that does not answer would take one buffer after the other from those that do.
            deadline = asyncio.get_running_loop().call_later(2 * self._settings.timeout_s, self.on_stop, peer, pull)
            self._published[peer, pull, number] = Published(buffer, ticket, deadline)
            trailer = held.payload.trailer if end == held.payload.num_bytes else b""
            self._send(peer, Frame.READY, pull, number, start, end, checksum, ticket, trailer)
            start, number = end, number + 1

    async def _next_end(self, held: Held, start: int, stop: int) -> int:
        """Where the message that begins at `start` ends, once that is there."""
        payload, production = held
        num_pieces = len(payload.ends)
        least = min(stop, start + self._settings.min_message_bytes)
        await production.until(payload.piece_at(least), num_pieces)
        produced = payload.end_of_pieces(production.num_produced(asyncio.get_running_loop().time(), num_pieces))
        return min(stop, start + self._settings.max_message_bytes, max(produced, least))

    def _fill(self, payload: Payload, start: int, end: int, buffer: int) -> int:
        return payload.fill(start, self._transport.send_buffers.view(buffer, end - start))

    # --- buffers come back --------------------------------------------------------------------------------------------

    def _stop(self, peer: int, pull: int) -> None:
        if (serving := self._serving.pop((peer, pull), None)) is not None:
            serving[1].cancel()

    def _worker_is_through_with(self, buffer: int) -> None:
        """A cancelled fill may still be going on: the buffer comes back after it."""

        async def release() -> None:
            await self._worker.run(self._settings.max_message_bytes, lambda: None)
            self._transport.send_buffers.release(buffer)

        self._spawn(release())

    def _withdraw(self, peer: int, published: Published) -> None:
        published.deadline.cancel()

        async def withdraw() -> None:
            await self._transport.withdraw(peer, published.ticket)
            self._transport.send_buffers.release(published.buffer)

        self._spawn(withdraw())

    def _spawn(self, coroutine) -> None:
        task = asyncio.ensure_future(coroutine)
        self._withdrawals.add(task)
        task.add_done_callback(self._withdrawals.discard)
