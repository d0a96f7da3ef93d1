"""What NIXL's reads leave behind when they do not end as they should; for the rest see tests/transfer/test_contract.py."""

import asyncio
import multiprocessing
import os
import signal
from contextlib import asynccontextmanager
from importlib.util import find_spec

import numpy as np
import pytest

from emu.transfer.nixl import Nixl
from emu.transfer.payload import KVPayload
from emu.transfer.settings import NixlSettings, TransferError
from emu.transfer.transport import TransportError
from tests.transfer.settings import transfer_settings

NUM_BUFFERS, BUFFER_BYTES = 2, 1 << 20
installed = pytest.mark.skipif(not any(map(find_spec, NixlSettings.modules)), reason="nixl is not installed")


def payload(buffer):
    return KVPayload(buffer, 1, BUFFER_BYTES)


def be_source(connection):
    """A process whose send buffers hold payloads."""

    async def run():
        transport = Nixl("cpu", BUFFER_BYTES, NUM_BUFFERS, BUFFER_BYTES)
        connection.send(await transport.open())
        for buffer in range(NUM_BUFFERS):
            payload(buffer).fill(0, transport.send_buffers.view(buffer, BUFFER_BYTES))
        await transport.connect({1: connection.recv()})
        connection.send("ready")
        await asyncio.to_thread(connection.recv)

    asyncio.run(run())


@asynccontextmanager
async def connected(descriptor_bytes=BUFFER_BYTES):
    """A transport, connected to peer 0, and the process of that peer."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=be_source, args=(there,), daemon=True)
    process.start()
    transport = Nixl("cpu", descriptor_bytes, NUM_BUFFERS, BUFFER_BYTES)
    try:
        own = await transport.open()
        await transport.connect({0: await asyncio.to_thread(here.recv), 1: own})
        here.send(own)
        await asyncio.to_thread(here.recv)
        await receive(transport, 0)
        yield transport, process
    finally:
        await asyncio.wait_for(transport.close(), 30)
        process.kill()
        process.join()


async def receive(transport, buffer, num_bytes=BUFFER_BYTES):
    async with transport.receive(0, buffer, num_bytes) as received:
        assert len(received) == num_bytes
        assert payload(buffer).verify(0, received)[0] is None


@asynccontextmanager
async def stuck_read(descriptor_bytes=BUFFER_BYTES):
    """As `connected`, and a read that has begun, from a process that is stopped."""
    async with connected(descriptor_bytes) as (transport, process):
        os.kill(process.pid, signal.SIGSTOP)
        await asyncio.to_thread(os.waitpid, process.pid, os.WUNTRACED)  # until it has stopped
        read = asyncio.ensure_future(receive(transport, 1))
        await asyncio.sleep(0.05)
        assert not read.done()  # however long: by TCP a process that is stopped sends nothing
        assert transport.receive_buffers.num_free == NUM_BUFFERS - 1
        yield transport, process, read


async def all_buffers_free(transport):
    async with asyncio.timeout(20):
        while transport.receive_buffers.num_free < NUM_BUFFERS:
            await asyncio.sleep(0.005)


@pytest.fixture
def by_tcp(monkeypatch):
    """The copy that the kernel makes between processes of one host is over as soon as it has begun."""
    monkeypatch.setenv("UCX_TLS", "tcp")


@installed
async def test_a_source_that_is_killed_ends_the_wait(by_tcp):
    async with stuck_read() as (transport, process, read):
        process.kill()
        with pytest.raises(TransportError, match="machine 0: "):
            await asyncio.wait_for(read, 20)
        await all_buffers_free(transport)
        with pytest.raises(TransportError, match="machine 0: "):
            await receive(transport, 0)
        await all_buffers_free(transport)


@installed
async def test_a_buffer_comes_back_when_nothing_is_written_to_it_any_more(by_tcp):
    """Of a read that was cancelled, and of one whose source was said to be gone: later than the caller's wait ends."""
    async with stuck_read() as (transport, process, read):
        read.cancel()
        await asyncio.wait({read}, timeout=20)
        assert read.cancelled()
        second = asyncio.ensure_future(receive(transport, 1))
        await asyncio.sleep(0)
        assert transport.receive_buffers.num_free == 0
        transport.forget(0)
        with pytest.raises(TransportError, match="machine 0 is gone"):
            await asyncio.wait_for(second, 20)
        with pytest.raises(TransportError, match="machine 0 is gone"):
            await receive(transport, 0)
        await asyncio.sleep(0.1)
        assert transport.receive_buffers.num_free == 0
        os.kill(process.pid, signal.SIGCONT)
        await all_buffers_free(transport)


@installed
async def test_it_closes_while_a_read_does_not_end(by_tcp):
    async with stuck_read() as (transport, _, read):
        await asyncio.wait_for(transport.close(), 20)
        with pytest.raises(TransportError, match="machine 0 is gone"):
            await read


@installed
async def test_descriptors_smaller_than_the_message():
    async with connected(descriptor_bytes=1000) as (transport, _):
        for num_bytes in (1, 999, 1000, 1001, 65_536, BUFFER_BYTES - 3):
            transport.receive_buffers.memory.fill(0)
            await receive(transport, 1, num_bytes)
            assert np.count_nonzero(transport.receive_buffers.memory) <= num_bytes


def test_without_the_package_it_says_what_to_install(monkeypatch):
    settings = transfer_settings(NixlSettings, "nixl")
    monkeypatch.setattr(NixlSettings, "modules", ("nixl_for_no_cuda", "nixl_of_tomorrow"))
    with pytest.raises(
        TransferError, match=r"transfer=nixl needs nixl_for_no_cuda or nixl_of_tomorrow, .* pip install -e '\.\[nixl\]'"
    ):
        settings.check()
