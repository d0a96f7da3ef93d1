"""Groups of two: what breaks one, what does not, and what is left of them. What they move: test_contract.py."""

import asyncio
import contextlib
import multiprocessing
import os
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import ray

pytest.importorskip("torch")

from emu.transfer.torch_backends import Gloo
from emu.transfer.torch_distributed import TorchDistributed
from emu.transfer.transport import TransportError
from emu.transfer.worker import NICENESS

HOST, MESSAGE_BYTES = "127.0.0.1", 1 << 20
SOURCE, DESTINATION = 3, 7  # addresses
LONG_S = 20.0  # longer than anything here takes: what ends for another reason has not waited for it


def transport(timeout_s, num_buffers=2):
    return TorchDistributed("gloo", HOST, num_buffers, MESSAGE_BYTES, timeout_s)


@contextlib.asynccontextmanager
async def connected(**options):
    """A source and a destination in this process."""
    source, destination = transport(**options), transport(**options)
    addresses = {SOURCE: await source.open(), DESTINATION: await destination.open()}
    await source.connect(addresses)
    await destination.connect(addresses)
    yield source, destination
    await source.close()
    await destination.close()


async def publish(source, value, peer=DESTINATION):
    """Bytes of this value. Returns their ticket and a function that withdraws them."""
    buffer = await source.send_buffers.acquire()
    source.send_buffers.view(buffer, MESSAGE_BYTES).fill(value)
    ticket = source.publish(peer, buffer, MESSAGE_BYTES)

    async def withdraw():
        await source.withdraw(peer, ticket)
        source.send_buffers.release(buffer)

    return ticket, withdraw


async def received(destination, ticket, peer=SOURCE):
    async with destination.receive(peer, ticket, MESSAGE_BYTES) as view:
        return set(np.unique(view).tolist())


async def moved(source, destination, value):
    """Move bytes of this value. Returns the number of the group."""
    ticket, withdraw = await publish(source, value)
    try:
        assert await received(destination, ticket) == {value}
    finally:
        await withdraw()
    return ticket[0]


async def eventually(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_group_lasts():
    async with connected(timeout_s=LONG_S) as (source, destination):
        assert [await moved(source, destination, value) for value in (1, 2, 3)] == [0, 0, 0]


async def test_what_is_declined_or_cancelled_breaks_nothing():
    async with connected(timeout_s=LONG_S, num_buffers=1) as (source, destination):
        ticket, withdraw = await publish(source, 1)
        destination.decline(SOURCE, ticket, MESSAGE_BYTES)
        await withdraw()
        ticket, withdraw = await publish(source, 2)
        receiving = asyncio.ensure_future(received(destination, ticket))
        await asyncio.sleep(0)
        receiving.cancel()
        await withdraw()
        assert await moved(source, destination, 3) == 0
        assert receiving.cancelled()


async def test_a_message_is_received_once():
    async with connected(timeout_s=LONG_S) as (source, destination):
        tickets = [await publish(source, value) for value in (1, 2)]
        for ticket, withdraw in reversed(tickets):
            await received(destination, ticket)
            await withdraw()
        for ticket, _ in tickets:
            destination.decline(SOURCE, ticket, MESSAGE_BYTES)
            with pytest.raises(TransportError, match=r"message \(0, \d\) of machine 3 was received before"):
                await received(destination, ticket)
        assert await moved(source, destination, 3) == 0


async def test_a_cancelled_receive_keeps_its_buffer_until_nothing_can_come_any_more():
    async with connected(timeout_s=0.5) as (source, destination):
        number = await moved(source, destination, 1)
        buffers = destination.receive_buffers
        receiving = asyncio.ensure_future(received(destination, (number, 1)))  # nobody sends that
        await eventually(lambda: buffers.num_free == 1)
        receiving.cancel()
        await asyncio.wait({receiving})
        assert buffers.num_free == 1
        await eventually(lambda: buffers.num_free == 2)  # the group has broken
        with contextlib.suppress(TransportError):
            await moved(source, destination, 2)  # the source may not know yet
        assert await moved(source, destination, 3) > number


@pytest.mark.parametrize("num_before", [0, 1], ids=["before there is a group", "in a group"])
async def test_what_nobody_receives_can_be_withdrawn(num_before):
    async with connected(timeout_s=0.5) as (source, destination):
        for _ in range(num_before):
            assert await moved(source, destination, 1) == 0
        _, withdraw = await publish(source, 2)
        await withdraw()
        assert await moved(source, destination, 3) == 1


async def test_in_order_a_message_takes_a_buffer_in_its_turn(monkeypatch):
    """As NCCL needs it, which has no tags: whoever asks first for the second message waits for the first."""
    monkeypatch.setattr(Gloo, "in_order", True)
    async with connected(timeout_s=LONG_S, num_buffers=1) as (source, destination):
        await moved(source, destination, 0)
        second = asyncio.ensure_future(received(destination, (0, 2)))
        await asyncio.sleep(0.05)
        assert await moved(source, destination, 1) == 0
        ticket, withdraw = await publish(source, 2)
        assert ticket == (0, 2)
        assert await second == {2}
        await withdraw()


def peer(connection: Connection) -> None:
    """The process of a source, which publishes one message and waits."""

    async def run() -> None:
        source = transport(LONG_S)
        connection.send(await source.open())
        await source.connect({DESTINATION: connection.recv()})
        connection.send((await publish(source, 5))[0])
        await asyncio.get_running_loop().run_in_executor(None, connection.recv)

    asyncio.run(run())


async def test_a_peer_dies_and_comes_back():
    """Whatever waits for it ends at once; with the process that takes its place it goes on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once
    pipes = [context.Pipe() for _ in range(2)]
    processes = [context.Process(target=peer, args=(theirs,), daemon=True) for _, theirs in pipes]
    for process in processes:
        process.start()
    loop = asyncio.get_running_loop()
    destination = transport(LONG_S)
    address = await destination.open()
    for process, (connection, _) in zip(processes, pipes, strict=True):
        await destination.connect({SOURCE: await loop.run_in_executor(None, connection.recv)})
        connection.send(address)
        number, tag = await loop.run_in_executor(None, connection.recv)
        assert await received(destination, (number, tag)) == {5}
        # A receive in a group that there is, and a send in one that is never made.
        waiting = asyncio.ensure_future(received(destination, (number, tag + 1)))
        _, withdraw = await publish(destination, 1, peer=SOURCE)
        await eventually(lambda: destination.receive_buffers.num_free == 1)
        process.kill()
        with pytest.raises(TransportError, match=r"^torch\.distributed: .*(closed|reset) by peer"):
            await waiting
        destination.forget(SOURCE)
        await withdraw()
        assert destination.receive_buffers.num_free == destination.send_buffers.num_free == 2
        with pytest.raises(TransportError, match="machine 3 is gone"):
            await received(destination, (number, tag + 2))
    await destination.close()


def native_threads() -> set[int]:
    """The threads of this process that torch's groups and stores, and transports, have started."""
    names = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            names[int(task.name)] = (task / "comm").read_text()
    pools = {thread.native_id for thread in threading.enumerate() if thread.name.startswith("kv-torch")}
    return {task for task, name in names.items() if task in pools or name.startswith(("gloo", "pt_"))}


def num_sockets() -> int:
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(os.readlink(descriptor))
    return sum(link.startswith("socket:") for link in links)


async def test_nothing_is_left_and_all_threads_give_way():
    threads_before, sockets_before = native_threads(), num_sockets()

    def started() -> set[int]:
        return native_threads() - threads_before

    async with connected(timeout_s=LONG_S) as (source, destination):
        await moved(source, destination, 1)
        await moved(source, destination, 2)
        assert len(started()) > 4
        assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in started()} == {NICENESS}
    del source, destination
    # Where other tests have connected this process to Ray, that opens and closes sockets as it likes.
    await eventually(lambda: not started() and (ray.is_initialized() or num_sockets() <= sockets_before))
