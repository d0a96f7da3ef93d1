"""Messages by NIXL over UCX: the destination reads them out of the source's registered memory, which is not asked.

UCX chooses how: RDMA where there is a NIC for it, between processes of one host copies by the kernel (CMA), else TCP; its
environment variables (UCX_TLS, UCX_NET_DEVICES) are heeded. A read by CMA is done when the call that posts it returns, at 4 to
10 GB/s, and so is what has arrived by TCP when a state is asked for: both are called off the event loop.

A read cannot be called off. NIXL 1.5 frees the handle of one in flight, and UCX still writes to the buffer, however much later
the bytes come (tried: a source that was stopped, and continued after its connection had been removed). So a buffer is used
again when its read has ended: with all bytes, or with the error that a dead peer causes.

The source learns by the frame that it gets of every message (DONE) that it is read. NIXL's notification would tell it at the
end of a read only, not of one given up, and to be found it would have to be polled for.
"""

import asyncio
import importlib
import logging
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from emu.transfer.buffers import Buffers
from emu.transfer.settings import NixlSettings, TransferError
from emu.transfer.transport import Ticket, Transport, TransportError
from emu.transfer.worker import Worker

P = ParamSpec("P")
T = TypeVar("T")
PROGRESS_S = 0.05
SPIN_S = 0.001  # polled without a pause for so long, then at intervals that grow with the time waited for
MAX_POLL_S = 0.05
CLOSE_S = 1.0  # how long reads in flight may take to end


class Address(NamedTuple):
    """What reads from a process are made with: its agent, and where its send buffers are."""

    agent_name: str
    agent_metadata: bytes
    memory: int
    device_id: int


class _Peer(NamedTuple):
    """A peer, the reads from it in flight, and whether it is `lost`."""

    agent_name: str
    memory: int
    device_id: int
    reads: set[asyncio.Task]
    lost: asyncio.Future


class Nixl(Transport):
    """A ticket is the number of the source's buffer, which is read in descriptors of at most `descriptor_bytes`."""

    receive_buffers: Buffers

    def __init__(self, device: str, descriptor_bytes: int, num_buffers: int, buffer_bytes: int) -> None:
        make: type[Buffers]
        if device == "cuda":
            import torch

            from emu.transfer.cuda_buffers import CudaBuffers

            if not torch.cuda.is_available():
                raise TransferError("transfer.device=cuda needs a GPU on every node, and one has none; choose cpu")
            make, self._memory_type, self._device_id = CudaBuffers, "VRAM", torch.cuda.current_device()
        else:
            make, self._memory_type, self._device_id = Buffers, "DRAM", 0
        self.send_buffers, self.receive_buffers = make(num_buffers, buffer_bytes), make(num_buffers, buffer_bytes)
        self._descriptor_bytes = descriptor_bytes
        self._worker = Worker("kv-read")  # UCX's own thread is started there too and gives way as it does
        self._peers: dict[int, _Peer] = {}
        self._removals: set[asyncio.Task] = set()
        self._agent: Any = None
        self._registered: Any = None

    async def open(self) -> Address:
        metadata = await self._call("this machine", 2 * self.send_buffers.memory.nbytes, self._start)
        return Address(self._agent.name, metadata, self.send_buffers.address, self._device_id)

    def _start(self) -> bytes:
        self._agent = _make_agent()
        both = (self.send_buffers, self.receive_buffers)
        regions = [(buffers.address, buffers.memory.nbytes, self._device_id, "") for buffers in both]
        self._registered = self._agent.register_memory(regions, self._memory_type)
        return self._agent.get_agent_metadata()

    async def connect(self, addresses: dict[int, Address]) -> None:
        for peer, (agent_name, metadata, memory, device_id) in addresses.items():
            if agent_name != self._agent.name:
                await self._call(f"machine {peer}", len(metadata), self._agent.add_remote_agent, metadata)
                self._peers[peer] = _Peer(agent_name, memory, device_id, set(), asyncio.get_running_loop().create_future())

    def publish(self, peer: int, buffer: int, num_bytes: int) -> Ticket:
        """Waits for the copy where the buffer has to go to a GPU: 0.2 ms for 4 MiB over PCIe 4.0."""
        self.send_buffers.upload(buffer, num_bytes)
        return buffer

    async def withdraw(self, peer: int, ticket: Ticket) -> None:
        """Who still reads it has given up waiting for it: nobody looks at what it gets."""

    # --- receiving ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def receive(self, peer: int, ticket: Ticket, num_bytes: int) -> AsyncIterator[np.ndarray]:
        if (remote := self._peers.get(peer)) is None:
            raise TransportError(f"machine {peer} is gone")
        buffer = await self.receive_buffers.acquire()
        if remote.lost.done():  # while this waited for a buffer
            self.receive_buffers.release(buffer)
            raise TransportError(f"machine {peer} is gone")
        assert isinstance(ticket, int)
        read = asyncio.ensure_future(self._read(peer, remote, ticket, num_bytes, buffer))
        remote.reads.add(read)
        try:
            await asyncio.wait({read, remote.lost}, return_when=asyncio.FIRST_COMPLETED)
            if not read.done():
                raise TransportError(f"machine {peer} is gone")
            read.result()
            yield self.receive_buffers.view(buffer, num_bytes)
        finally:
            read.add_done_callback(lambda _: self._has_ended(remote, read, buffer))

    def _has_ended(self, remote: _Peer, read: asyncio.Task, buffer: int) -> None:
        if not read.cancelled():
            read.exception()  # nobody may be left to raise it to
        remote.reads.discard(read)
        self.receive_buffers.release(buffer)

    async def _read(self, peer: int, remote: _Peer, ticket: int, num_bytes: int, buffer: int) -> None:
        """Read a message into a receive buffer. Returns when nothing is written there any more, or raises TransportError."""
        name, clock = f"machine {peer}", asyncio.get_running_loop().time
        start_s = clock()
        handle, state = await self._call(name, num_bytes, self._post, remote, ticket, num_bytes, buffer)
        try:
            while state == "PROC":
                waited_s = clock() - start_s
                await asyncio.sleep(0 if waited_s < SPIN_S else min(waited_s / 8, MAX_POLL_S))
                state = await self._call(name, num_bytes, self._check, handle, num_bytes, buffer)
        finally:
            handle.release()
        if state != "DONE":
            raise TransportError(f"{name}: NIXL could not read")

    def _post(self, remote: _Peer, ticket: int, num_bytes: int, buffer: int) -> tuple[Any, str]:
        """Begin a read. Returns its handle and state.

        Descriptors that are prepared once (`prep_xfer_dlist`) would save 40 us of the 700 that 4 MiB take, but NIXL merges
        those that are neighbours, and then `descriptor_bytes` says nothing.
        """
        ours = self._descriptors(self.receive_buffers.address, buffer, num_bytes, self._device_id)
        theirs = self._descriptors(remote.memory, ticket, num_bytes, remote.device_id)
        handle = self._agent.initialize_xfer("READ", ours, theirs, remote.agent_name)
        return handle, self._downloaded(self._agent.transfer(handle), num_bytes, buffer)

    def _check(self, handle: Any, num_bytes: int, buffer: int) -> str:
        return self._downloaded(self._agent.check_xfer_state(handle), num_bytes, buffer)

    def _downloaded(self, state: str, num_bytes: int, buffer: int) -> str:
        if state == "DONE":
            self.receive_buffers.download(buffer, num_bytes)
        return state

    def _descriptors(self, memory: int, buffer: int, num_bytes: int, device_id: int) -> Any:
        """Of the first bytes of a buffer, of those that begin at `memory`."""
        starts = np.arange(0, num_bytes, self._descriptor_bytes, dtype=np.uint64)
        table = np.empty((len(starts), 3), dtype=np.uint64)
        table[:, 0] = starts + np.uint64(memory + buffer * self.send_buffers.buffer_bytes)
        table[:, 1] = np.minimum(np.uint64(num_bytes) - starts, np.uint64(self._descriptor_bytes))
        table[:, 2] = device_id
        return self._agent.get_xfer_descs(table, self._memory_type)

    # --- the end ------------------------------------------------------------------------------------------------------

    def forget(self, peer: int) -> None:
        if (remote := self._peers.pop(peer, None)) is not None:
            remote.lost.set_result(None)
            removal = asyncio.ensure_future(self._remove(peer, remote))
            self._removals.add(removal)
            removal.add_done_callback(self._removals.discard)

    async def _remove(self, peer: int, remote: _Peer) -> None:
        """Removed before its reads have ended, its agent would not tell that they have."""
        while remote.reads:
            await asyncio.gather(*remote.reads, return_exceptions=True)
        with suppress(TransportError):  # NIXL has removed it itself if its connection broke
            await self._call(f"machine {peer}", 0, self._agent.remove_remote_agent, remote.agent_name)

    async def close(self) -> None:
        for peer in list(self._peers):
            self.forget(peer)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(*self._removals)
        if self._agent is not None:
            await self._call("this machine", 2 * self.send_buffers.memory.nbytes, self._stop)
        self._worker.close()
        self.send_buffers.close()
        self.receive_buffers.close()

    def _stop(self) -> None:
        self._agent.deregister_memory(self._registered)
        self._agent = None

    async def _call(self, what: str, num_bytes: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a call to NIXL that moves so many bytes; its exceptions have no base but Exception."""
        try:
            return await self._worker.run(num_bytes, work, *args, **kwargs)
        except Exception as error:
            raise TransportError(f"{what}: {str(error) or type(error).__name__}") from error


def _make_agent() -> Any:
    """A `nixl_agent` with the UCX backend, and a thread that answers peers: by TCP it sends what they read.

    The thread waits for events, and looks every `PROGRESS_S` whether it was not told of one. NIXL's Python class has it look
    without a pause, which takes a whole core, and no setting for that: so its inner agent is replaced by one made as told.
    """
    os.environ.setdefault("NIXL_LOG_LEVEL", "ERROR")  # else the import and the agent say on standard output what they do
    module = next(module for module in NixlSettings.modules if find_spec(module))
    api, bindings = importlib.import_module(module), importlib.import_module(f"{module}._bindings")
    logging.raiseExceptions = True  # which the import switches off for the whole process
    agent = api.nixl_agent(uuid.uuid4().hex, api.nixl_agent_config(enable_prog_thread=False, backends=[]))
    config = bindings.nixlAgentConfig()
    config.useProgThread, config.pthrDelay = True, round(PROGRESS_S * 1e6)
    config.syncMode = bindings.NIXL_THREAD_SYNC_RW  # several threads use it: ours, and for small messages the event loop's
    agent.agent = bindings.nixlAgent(agent.name, config)
    agent.create_backend("UCX")
    return agent
