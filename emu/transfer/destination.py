"""The destination's side of transfers: pulls payloads, verifies every byte, and asks again for what did not come."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from emu.transfer.busy_time import BusyTime
from emu.transfer.counts import TransferCounts
from emu.transfer.frames import Frame
from emu.transfer.payload import Payload
from emu.transfer.settings import TransferSettings
from emu.transfer.source import Key
from emu.transfer.transport import Ticket, Transport, TransportError
from emu.transfer.worker import Worker

RETRY_S = 0.05
Range = tuple[int, int]  # bytes [start, stop) of a payload
log = logging.getLogger(__name__)


class SourceLost(ConnectionError):
    """The process that held the payload is gone."""


class TransferFailed(RuntimeError):
    """A payload was given up: some of it did not come right however often it was asked for. The text says what was wrong."""


class Pulled(NamedTuple):
    """A verified payload: when the pull began, the last byte was here, and all were verified (`time.monotonic()`).

    `wire_s` and `verify_s` are the seconds in which at least one message was on the wire, or being verified.
    """

    num_bytes: int
    num_messages: int
    start_s: float
    fetched_s: float
    verified_s: float
    wire_s: float
    verify_s: float


class Ready(NamedTuple):
    """A message that can be received: the fields of its frame."""

    number: int
    start: int
    stop: int
    checksum: int
    ticket: Ticket
    trailer: bytes


class _Pull:
    """One pull under way: what is ready to be received, and what has come."""

    def __init__(self, source: int, payload: Payload) -> None:
        self.source = source
        self.payload = payload
        self.ready: asyncio.Queue[Ready | Exception | None] = asyncio.Queue()  # None: the source does not hold it
        self.wire, self.verify = BusyTime(), BusyTime()
        self.num_messages = 0
        self.problem = ""


class Destination:
    """Pulls payloads, any number at once, and counts what happens."""

    def __init__(self, transport: Transport, settings: TransferSettings, send: Callable[..., None]) -> None:
        self._transport = transport
        self._settings = settings
        self._send = send
        self._worker = Worker("kv-verify")
        self._pulls: dict[int, _Pull] = {}
        self._num_pulls = 0
        self._lost: set[int] = set()  # peers that are gone
        self._counts = dict.fromkeys(TransferCounts._fields, 0)

    @property
    def num_pulling(self) -> int:
        return len(self._pulls)

    def take_counts(self) -> TransferCounts:
        counts = TransferCounts(**self._counts)
        self._counts = dict.fromkeys(self._counts, 0)
        return counts

    async def pull(self, source: int, key: Key, payload: Payload, until_s: float = 0.0) -> Pulled:
        """Return once all bytes that `source` holds of `key` are here and verified against `payload`.

        They come into being until `until_s` (the event loop's time); after that no message may take longer than `timeout_s`.
        What is wrong, late or missing is asked for again, at most `max_tries` times in all. Raises SourceLost where the source
        is gone, TransferFailed where something still did not come.
        """
        start_s = time.monotonic()
        pull = _Pull(source, payload)
        wanted: list[Range] = [(0, payload.num_bytes)]
        for num_tries in range(self._settings.max_tries):
            if num_tries:
                self._counts["resent"] += len(wanted)
                await asyncio.sleep(RETRY_S)
            missing: list[Range] = []
            for start, stop in wanted:
                missing += await self._pull_range(pull, key, start, stop, until_s)
            if not missing:
                self._counts["verified"] += 1
                verified_s = time.monotonic()
                wire, verify = pull.wire, pull.verify
                return Pulled(
                    payload.num_bytes, pull.num_messages, start_s, wire.left_s, verified_s, wire.total_s, verify.total_s
                )
            wanted = missing
        self._counts["failed"] += 1
        raise TransferFailed(f"{pull.problem}, after {self._settings.max_tries} tries")

    # --- what sources say ---------------------------------------------------------------------------------------------

    def on_ready(self, peer: int, number: int, *fields) -> None:
        pull, message = self._pulls.get(number), Ready(*fields)
        if pull is None or pull.source != peer:
            self._counts["late"] += 1
            self._decline(peer, number, message)
        else:
            pull.ready.put_nowait(message)

    def on_gone(self, peer: int, number: int) -> None:
        if number in self._pulls:
            self._pulls[number].ready.put_nowait(None)

    def on_peer_lost(self, peer: int) -> None:
        self._lost.add(peer)
        for pull in self._pulls.values():
            if pull.source == peer:
                pull.ready.put_nowait(SourceLost(f"machine {peer} is gone"))

    # --- one range ----------------------------------------------------------------------------------------------------

    async def _pull_range(self, pull: _Pull, key: Key, start: int, stop: int, until_s: float) -> list[Range]:
        """Pull bytes [start, stop). Returns what of them did not come, or not as it should."""
        if pull.source in self._lost:
            raise SourceLost(f"machine {pull.source} is gone")
        self._num_pulls += 1
        number = self._num_pulls
        missing: list[Range] = []
        receiving: dict[asyncio.Task, Ready] = {}
        self._pulls[number] = pull
        self._send(pull.source, Frame.PULL, number, *key, start, stop)
        try:
            missing += await self._collect(pull, number, start, stop, until_s, receiving)
            for task, message in receiving.items():
                if not await task:
                    missing.append((message.start, message.stop))
        finally:
            del self._pulls[number]
            for task, message in receiving.items():
                if task.cancel():  # perhaps before it has begun
                    self._transport.decline(pull.source, message.ticket, message.stop - message.start)
            for waiting in [pull.ready.get_nowait() for _ in range(pull.ready.qsize())]:
                if isinstance(waiting, Ready):
                    self._decline(pull.source, number, waiting)
            self._send(pull.source, Frame.STOP, number)
        return missing

    def _decline(self, peer: int, number: int, message: Ready) -> None:
        self._transport.decline(peer, message.ticket, message.stop - message.start)
        self._send(peer, Frame.DONE, number, message.number)

    async def _collect(
        self, pull: _Pull, number: int, start: int, stop: int, until_s: float, receiving: dict[asyncio.Task, Ready]
    ) -> list[Range]:
        """Start to receive each message as it becomes ready. Returns what of the range was in none."""
        loop = asyncio.get_running_loop()
        wanted = [(start, stop)]
        seen: set[int] = set()
        while wanted:
            wait_s = self._settings.timeout_s + max(0.0, until_s - loop.time())
            try:
                async with asyncio.timeout(wait_s):  # `wait_for` of Python 3.11 may swallow that this is cancelled
                    message = await pull.ready.get()
            except TimeoutError:
                self._note(pull, "late", f"nothing came for {wait_s:.3g} s")
                break
            if isinstance(message, Exception):
                raise message
            if message is None:
                self._note(pull, "missing", f"machine {pull.source} does not hold it")
                break
            if message.number in seen:
                self._counts["duplicated"] += 1
                continue
            part = (message.start, message.stop)
            left = _without(wanted, part)
            if left is None:
                self._counts["duplicated"] += 1  # or no part of what was asked for
                self._decline(pull.source, number, message)
                continue
            self._counts["reordered"] += message.number < max(seen, default=-1)
            seen.add(message.number)
            wanted = left
            receiving[asyncio.ensure_future(self._receive(pull, number, message))] = message
        return wanted

    async def _receive(self, pull: _Pull, number: int, message: Ready) -> bool:
        """Receive and verify one message. Returns whether it is right."""
        num_bytes = message.stop - message.start
        try:
            with pull.wire:
                receiving = self._transport.receive(pull.source, message.ticket, num_bytes)
                async with asyncio.timeout(self._settings.timeout_s):
                    received = await receiving.__aenter__()
            try:
                self._counts["bytes_moved"] += received.nbytes
                pull.num_messages += 1
                if received.nbytes != num_bytes:
                    return self._note(pull, "truncated", f"{received.nbytes} bytes came in place of {num_bytes}")
                with pull.verify:
                    problem = await self._worker.run(num_bytes, pull.payload.check, message.start, received, message.checksum)
                if problem:
                    return self._note(pull, "corrupt", problem)
                if message.stop == pull.payload.num_bytes:
                    pull.payload.trailer = message.trailer
                return True
            finally:
                await receiving.__aexit__(None, None, None)
        except TimeoutError:
            return self._note(pull, "late", f"a message took longer than {self._settings.timeout_s:g} s")
        except TransportError as error:
            return self._note(pull, "broken", str(error))
        finally:
            self._send(pull.source, Frame.DONE, number, message.number)

    def _note(self, pull: _Pull, what: str, problem: str) -> bool:
        """Count something that went wrong. Returns False."""
        self._counts[what] += 1
        pull.problem = problem
        log.info("a pull from machine %d: %s", pull.source, problem)
        return False


def _without(wanted: list[Range], part: Range) -> list[Range] | None:
    """What is left of the ranges `wanted` without `part`; None where that does not lie in one of them."""
    start, stop = part
    for index, (first, last) in enumerate(wanted):
        if first <= start < stop <= last:
            pieces = [(first, start), (stop, last)]
            return [*wanted[:index], *[piece for piece in pieces if piece[0] < piece[1]], *wanted[index + 1 :]]
    return None
