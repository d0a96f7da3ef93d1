"""The control port: frames arrive whole and in order; a connection without the secret is refused."""

import asyncio
import struct

import msgpack
import pytest

from emu.runtime.wire import MAX_HELLO_BYTES, Channel, FrameKind, connect

SECRET = b"s" * 32


class Port:
    """A control port that keeps what it gets."""

    def __init__(self) -> None:
        self.frames: list[tuple] = []
        self.opened: list[int] = []
        self.closed: list[int] = []

    async def __aenter__(self) -> "Port":
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(
            lambda: Channel(
                SECRET,
                None,
                lambda channel, frame: self.frames.append((channel.peer, *frame)),
                lambda channel: self.closed.append(channel.peer),
                on_open=lambda channel: self.opened.append(channel.peer),
            ),
            "127.0.0.1",
            0,
        )
        self.number = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.server.close()


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def frame(*fields: object) -> bytes:
    body = msgpack.packb(fields)
    return struct.pack("!I", len(body)) + body


async def test_frames_arrive_whole_and_in_order_and_a_close_is_noticed():
    async with Port() as port:
        channel = await connect("127.0.0.1", port.number, SECRET, 7, 0, lambda *_: None, lambda *_: None)
        for number in range(100):
            channel.send(FrameKind.MESSAGE, number, "x" * number * 100)
        await until(lambda: len(port.frames) == 100)
        assert port.frames == [(7, FrameKind.MESSAGE, number, "x" * number * 100) for number in range(100)]
        channel.close()
        await until(lambda: port.closed == [7])


async def test_a_frame_cut_into_single_bytes():
    async with Port() as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port.number)
        for byte in frame(FrameKind.HELLO, SECRET, 3) + frame(FrameKind.HEARTBEAT):
            writer.write(bytes([byte]))
            await writer.drain()
        await until(lambda: port.frames == [(3, FrameKind.HEARTBEAT)])
        writer.close()


@pytest.mark.parametrize(
    "greeting",
    [
        frame(FrameKind.HELLO, b"w" * 32, 3),
        frame(FrameKind.HELLO, SECRET[:-1], 3),
        frame(FrameKind.HELLO, "text", 3),
        frame(FrameKind.HELLO),
        frame(FrameKind.MESSAGE, SECRET, 3),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        struct.pack("!I", MAX_HELLO_BYTES + 1) + b"\xc0",
        struct.pack("!I", 4) + b"\xc1\xc1\xc1\xc1",
    ],
    ids=["wrong secret", "short secret", "no bytes", "no secret", "no hello", "http", "too long", "no msgpack"],
)
async def test_a_connection_without_the_secret_is_refused(greeting: bytes):
    async with Port() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
        writer.write(greeting + frame(FrameKind.MESSAGE, 0, -1, 0.0, 1, ()))
        async with asyncio.timeout(5):
            try:
                answer = await reader.read()
            except ConnectionResetError:
                answer = b""
        assert answer == b"", "closed without a word"
        assert (port.frames, port.opened) == ([], [])
        writer.close()


async def test_a_caller_with_a_wrong_secret_is_told_so():
    async with Port() as port:
        with pytest.raises(ConnectionError, match="refused the handshake"):
            await connect("127.0.0.1", port.number, b"wrong", 7, 0, lambda *_: None, lambda *_: None)
