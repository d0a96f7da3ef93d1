"""Both ends in one process, over a transport that needs nothing: what is hard to bring about between actors."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from emu.transfer.buffers import Buffers
from emu.transfer.destination import SourceLost
from emu.transfer.frames import Frame
from emu.transfer.kv_transfer import KVTransfer
from emu.transfer.payload import KVPayload
from emu.transfer.production import TimedProduction
from emu.transfer.transport import Transport, TransportError
from tests.transfer.settings import settings_named

SOURCE, DESTINATION, OTHER = range(3)
MESSAGE, KEY = 1 << 20, (1, 1)


class Memory(Transport):
    """Reads the buffers of its peers."""

    def __init__(self) -> None:
        self.send_buffers = Buffers(3, MESSAGE)
        self.fails = 0  # so many messages cannot be published

    async def open(self):
        return self

    async def connect(self, addresses):
        self.peers = addresses

    def publish(self, peer, buffer, num_bytes):
        if self.fails:
            self.fails -= 1
            raise TransportError("no")
        return buffer

    async def withdraw(self, peer, ticket):
        pass

    @asynccontextmanager
    async def receive(self, peer, ticket, num_bytes):
        yield self.peers[peer].send_buffers.view(ticket, num_bytes).copy()

    async def close(self):
        pass


class Net:
    """Three ends. `on_frame(sender, receiver, frame)` sees each frame, and keeps from coming what it returns True for."""

    def __init__(self, timeout_s=1.0) -> None:
        settings = settings_named(max_message_bytes=MESSAGE, timeout_s=timeout_s)
        self.on_frame = lambda sender, receiver, frame: False
        self.ends = [KVTransfer(Memory(), settings, self._sender(index)) for index in range(3)]

    async def __aenter__(self) -> "Net":
        for end in self.ends:
            await end.connect({index: other.transport for index, other in enumerate(self.ends)})
        return self

    async def __aexit__(self, *exception):
        pass

    def _sender(self, sender):
        def send(receiver, *frame):
            if not self.on_frame(sender, receiver, frame):
                asyncio.get_running_loop().call_soon(self.ends[receiver].on_frame, sender, *frame)

        return send


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("num_turns", range(6))
async def test_a_cancel_is_heard_whatever_comes_at_the_same_time(num_turns):
    async with Net() as net:
        source, destination = net.ends[:2]
        payload, now_s = KVPayload(*KEY, 5 * MESSAGE, 5), asyncio.get_running_loop().time()
        source.hold(KEY, payload, TimedProduction(now_s, now_s + 1.0))
        pulling = asyncio.ensure_future(destination.pull(SOURCE, KEY, payload, now_s + 1.0))

        def cancel(turns):
            if turns:
                asyncio.get_running_loop().call_soon(cancel, turns - 1)
            else:
                pulling.cancel()

        def on_frame(sender, receiver, frame):
            if frame[0] == Frame.READY and frame[2] == 0:
                cancel(num_turns)
            return False

        net.on_frame = on_frame
        await asyncio.wait({pulling})
        assert pulling.cancelled()
        source.free(KEY)
        await until(lambda: source.transport.send_buffers.num_free == 3)
        assert (destination.take_counts().verified, destination.destination.num_pulling) == (0, 0)


async def test_a_destination_that_does_not_answer_takes_no_buffers_from_those_that_do():
    async with Net(timeout_s=0.2) as net:
        source, _, other = net.ends
        net.on_frame = lambda sender, receiver, frame: receiver == DESTINATION
        source.hold(KEY, KVPayload(*KEY, 100 * MESSAGE))
        source.on_frame(DESTINATION, Frame.PULL, 1, *KEY, 0, 100 * MESSAGE)
        await until(lambda: source.transport.send_buffers.num_free == 0)
        source.hold((2, 1), KVPayload(2, 1, 20 * MESSAGE))
        await other.pull(SOURCE, (2, 1), KVPayload(2, 1, 20 * MESSAGE))
        await until(lambda: source.transport.send_buffers.num_free == 3)


async def test_what_cannot_be_published_is_asked_for_again():
    async with Net() as net:
        source, destination = net.ends[:2]
        source.transport.fails = 2
        source.hold(KEY, KVPayload(*KEY, 3 * MESSAGE))
        await destination.pull(SOURCE, KEY, KVPayload(*KEY, 3 * MESSAGE))
        counts = destination.take_counts()
        assert (counts.missing, counts.resent, counts.verified) == (2, 2, 1)
        await until(lambda: source.transport.send_buffers.num_free == 3)


async def test_a_source_that_is_lost_between_two_tries_is_lost():
    async with Net() as net:
        destination = net.ends[DESTINATION]
        pulling = asyncio.ensure_future(destination.pull(SOURCE, KEY, KVPayload(*KEY, MESSAGE)))
        await until(lambda: destination.destination._counts["missing"] == 1 and not destination.destination.num_pulling)
        destination.on_peer_lost(SOURCE)
        with pytest.raises(SourceLost, match="machine 0 is gone"):
            await pulling
        with pytest.raises(SourceLost, match="machine 0 is gone"):
            await destination.pull(SOURCE, (2, 1), KVPayload(2, 1, MESSAGE))
