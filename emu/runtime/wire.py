"""Frames between the hosts of a run: length-prefixed msgpack on asyncio streams, opened by a handshake.

A connection begins with one frame that carries the run's secret and the caller's address; anything else is refused before
another byte is read. Then both sides send frames: (kind, *fields), as `FrameKind` lists them.
"""

import asyncio
import hmac
import struct
from collections.abc import Callable
from enum import IntEnum

import msgpack

_HEADER = struct.Struct("!I")
MAX_HELLO_BYTES = 256
MAX_FRAME_BYTES = 1 << 26
HANDSHAKE_TIMEOUT_S = 10.0


class FrameKind(IntEnum):
    """What a frame is, and its fields."""

    HELLO = 0  # secret, address of the caller
    WELCOME = 1  # (the handshake's answer)
    MESSAGE = 2  # sender, receiver, due_s, seq, encoded message
    FACTS = 3  # packed records and measurements: see Report
    START = 4  # start instant (reference clock), dilation
    STOP = 5  # (flush and answer DONE)
    DONE = 6
    HEARTBEAT = 7
    PING = 8  # (answer PONG)
    PONG = 9  # monotonic clock
    TRANSFER = 10  # a frame of the KV transfers and its fields: see transfer.frames


class Channel(asyncio.Protocol):
    """One authenticated connection. `on_frame(channel, frame)` gets each frame, `on_close(channel)` the end of it.

    `peer` is the other side's address once the handshake is through; then `opened` resolves and `on_open(channel)` is called.
    """

    def __init__(
        self,
        secret: bytes,
        own_address: int | None,
        on_frame: Callable[["Channel", tuple], None],
        on_close: Callable[["Channel"], None],
        peer: int | None = None,
        on_open: Callable[["Channel"], None] = lambda channel: None,
    ) -> None:
        self._secret = secret
        self._own_address = own_address  # None on the accepting side
        self._on_frame = on_frame
        self._on_close = on_close
        self._on_open = on_open
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timeout: asyncio.TimerHandle
        self._peer = peer
        self.is_open = False
        self.opened = asyncio.get_running_loop().create_future()

    @property
    def peer(self) -> int:
        """The address of the other side, once the channel is open."""
        assert self._peer is not None
        return self._peer

    def send(self, *frame: object) -> None:
        """Send a frame; silently nothing once the connection is closed: `on_close` has told."""
        if self._transport is not None and not self._transport.is_closing():
            body = msgpack.packb(frame)
            self._transport.write(_HEADER.pack(len(body)) + body)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # --- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._timeout = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT_S, transport.abort)
        if self._own_address is not None:
            self.send(FrameKind.HELLO, self._secret, self._own_address)

    def data_received(self, data: bytes) -> None:
        buffer, transport = self._buffer, self._transport
        assert transport is not None
        buffer += data
        position = 0
        while len(buffer) - position >= _HEADER.size:
            (length,) = _HEADER.unpack_from(buffer, position)
            if length > (MAX_FRAME_BYTES if self.is_open else MAX_HELLO_BYTES):
                transport.abort()
                return
            end = position + _HEADER.size + length
            if len(buffer) < end:
                break
            body = bytes(buffer[position + _HEADER.size : end])
            position = end
            if self.is_open:
                self._on_frame(self, msgpack.unpackb(body, use_list=False))
            elif not self._open(body):
                transport.abort()
                return
        del buffer[:position]

    def connection_lost(self, exc: Exception | None) -> None:
        self._timeout.cancel()
        was_open, self.is_open = self.is_open, False
        if not self.opened.done():
            self.opened.cancel()
        if was_open:
            self._on_close(self)

    def _open(self, body: bytes) -> bool:
        try:
            frame = msgpack.unpackb(body, use_list=False)
        except (ValueError, msgpack.UnpackException):
            return False
        if self._own_address is not None:
            accepted = frame == (FrameKind.WELCOME,)
        else:
            accepted = (
                isinstance(frame, tuple)
                and len(frame) == 3
                and frame[0] == FrameKind.HELLO
                and isinstance(frame[1], bytes)
                and isinstance(frame[2], int)
                and hmac.compare_digest(frame[1], self._secret)
            )
            if accepted:
                self._peer = frame[2]
                self.send(FrameKind.WELCOME)
        if accepted:
            self._timeout.cancel()
            self.is_open = True
            self.opened.set_result(None)
            self._on_open(self)
        return accepted


async def connect(
    host: str,
    port: int,
    secret: bytes,
    own_address: int,
    peer: int,
    on_frame: Callable[[Channel, tuple], None],
    on_close: Callable[[Channel], None],
) -> Channel:
    """Connect to the host `peer` at `host:port`. Raises ConnectionError where it does not answer the handshake."""
    loop = asyncio.get_running_loop()
    _, channel = await loop.create_connection(lambda: Channel(secret, own_address, on_frame, on_close, peer), host, port)
    try:
        await channel.opened
    except asyncio.CancelledError:
        raise ConnectionError(f"host {peer} at {host}:{port} refused the handshake") from None
    return channel
