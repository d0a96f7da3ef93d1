"""Messages by torch.distributed's point-to-point operations, in a process group of two for each source and destination.

Of `store`s, where the two ends of a group meet, each process has its own. A group is numbered by its source, in whose store
they meet; a ticket is that number and the message's own in the group. Both ends make the group when they first need it and
keep it. Where something in it fails, they drop it, and the source's next message begins another one.
"""

import asyncio
import contextlib
import functools
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.distributed import ProcessGroup, Store, TCPStore

from emu.transfer.peer_group import DESTINATION, SOURCE, PeerGroup
from emu.transfer.torch_backends import BACKENDS
from emu.transfer.transport import Ticket, Transport, TransportError
from emu.transfer.worker import give_way

if TYPE_CHECKING:
    from emu.transfer.torch_backends import TensorBuffers

Address = tuple[str, int]  # of a store


class TorchDistributed(Transport):
    """By `backend`, gloo or nccl, between `host`s.

    A receive is given up after `timeout_s`, a send after three times as much: what is published may wait for so long.
    """

    send_buffers: "TensorBuffers"
    receive_buffers: "TensorBuffers"

    def __init__(self, backend: str, host: str, num_buffers: int, buffer_bytes: int, timeout_s: float) -> None:
        self._host, self._timeout_s = host, timeout_s
        self._receive_timeout, self._send_timeout = timedelta(seconds=timeout_s), timedelta(seconds=3 * timeout_s)
        # Each buffer may keep a thread waiting; the others make and close groups.
        self._threads = ThreadPoolExecutor(4 * num_buffers + 16, "kv-torch", give_way)
        self._backend = self._threads.submit(BACKENDS[backend], host, timeout_s).result()
        self.send_buffers = self._backend.make_buffers(num_buffers, buffer_bytes)
        self.receive_buffers = self._backend.make_buffers(num_buffers, buffer_bytes)
        self._store: TCPStore | None = None
        self._addresses: dict[int, Address] = {}
        self._numbers = itertools.count()
        self._outgoing: dict[int, PeerGroup] = {}
        self._incoming: dict[int, PeerGroup] = {}
        self._sending: dict[tuple[int, int], tuple[PeerGroup, asyncio.Task[None]]] = {}  # by ticket
        self._receiving: set[asyncio.Task[int]] = set()

    async def open(self) -> Address:
        loop = asyncio.get_running_loop()
        self._store = await loop.run_in_executor(self._threads, self._make_store)
        return self._host, self._store.port

    async def connect(self, addresses: dict[int, Address]) -> None:
        for peer, (host, port) in addresses.items():
            if self._addresses.get(peer) != (host, port):
                self.forget(peer)
                self._addresses[peer] = host, port

    # --- source -------------------------------------------------------------------------------------------------------

    def publish(self, peer: int, buffer: int, num_bytes: int) -> Ticket:
        group = self._outgoing.get(peer)
        if group is None or group.is_broken:
            clone: Callable[[], Store] = self._store.clone  # type: ignore[union-attr]  # torch's types lack it
            group = self._outgoing[peer] = self._make_group(next(self._numbers), SOURCE, clone)
        tag = next(group.tags)
        self._sending[group.number, tag] = group, asyncio.ensure_future(self._send(group, tag, buffer, num_bytes))
        return group.number, tag

    async def _send(self, group: PeerGroup, tag: int, buffer: int, num_bytes: int) -> None:
        def send(process_group: ProcessGroup) -> None:
            self.send_buffers.upload(buffer, num_bytes)
            process_group.send([self.send_buffers.tensor(buffer, num_bytes)], DESTINATION, tag).wait(self._send_timeout)

        async with group.turn(tag):
            await group.run(send)

    async def withdraw(self, peer: int, ticket: Ticket) -> None:
        assert isinstance(ticket, tuple)
        number, tag = ticket
        group, sending = self._sending.pop((number, tag))
        done, _ = await asyncio.wait({sending}, timeout=self._timeout_s)
        if not done:
            group.break_off(f"machine {peer} did not receive a message for {self._timeout_s:g} s")
            await asyncio.wait({sending})
        sending.exception()  # its destination has noticed

    # --- destination --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def receive(self, peer: int, ticket: Ticket, num_bytes: int) -> AsyncIterator[np.ndarray]:
        receiving = self._start(peer, ticket, num_bytes)
        if receiving is None:
            raise TransportError(f"message {ticket} of machine {peer} was received before")
        try:
            buffer = await asyncio.shield(receiving)
        except asyncio.CancelledError:
            receiving.add_done_callback(self._drop)
            raise
        try:
            yield self.receive_buffers.view(buffer, num_bytes)
        finally:
            self.receive_buffers.release(buffer)

    def decline(self, peer: int, ticket: Ticket, num_bytes: int) -> None:
        """Receive it nevertheless: what is sent cannot be taken back without breaking its group."""
        with contextlib.suppress(TransportError):
            if (receiving := self._start(peer, ticket, num_bytes)) is not None:
                receiving.add_done_callback(self._drop)

    def _start(self, peer: int, ticket: Ticket, num_bytes: int) -> asyncio.Task[int] | None:
        """Receive a message, whoever waits for it, once: None where that has begun before."""
        assert isinstance(ticket, tuple)
        number, tag = ticket
        group = self._incoming_group(peer, number)
        if not group.begin(tag):
            return None
        receiving = asyncio.ensure_future(self._receive(group, tag, num_bytes))
        self._receiving.add(receiving)
        receiving.add_done_callback(self._receiving.discard)
        return receiving

    async def _receive(self, group: PeerGroup, tag: int, num_bytes: int) -> int:
        """The receive buffer that the message is in."""

        def receive(process_group: ProcessGroup) -> None:
            process_group.recv([self.receive_buffers.tensor(buffer, num_bytes)], SOURCE, tag).wait(self._receive_timeout)
            self.receive_buffers.download(buffer, num_bytes)

        async with group.turn(tag):
            buffer = await self.receive_buffers.acquire()
            try:
                await group.run(receive)
            except BaseException:
                self.receive_buffers.release(buffer)
                raise
        return buffer

    def _drop(self, receiving: asyncio.Task[int]) -> None:
        """Nobody waits for it any more."""
        if not receiving.cancelled() and receiving.exception() is None:
            self.receive_buffers.release(receiving.result())

    # --- groups -------------------------------------------------------------------------------------------------------

    def _incoming_group(self, peer: int, number: int) -> PeerGroup:
        if peer not in self._addresses:
            raise TransportError(f"machine {peer} is gone")
        group = self._incoming.get(peer)
        if group is None or group.number < number:
            if group is not None:
                group.break_off(f"machine {peer} has begun another group")
            host, port = self._addresses[peer]
            connect = functools.partial(TCPStore, host, port, timeout=self._receive_timeout, wait_for_workers=False)
            group = self._incoming[peer] = self._make_group(number, DESTINATION, connect)
        if group.number > number:
            raise TransportError(f"machine {peer} has dropped the group of message {number}")
        return group

    def _make_group(self, number: int, rank: int, store: Callable[[], Store]) -> PeerGroup:
        return PeerGroup(number, self._backend, self._threads, rank, store)

    def forget(self, peer: int) -> None:
        self._addresses.pop(peer, None)
        for groups in (self._outgoing, self._incoming):
            if peer in groups:
                groups.pop(peer).break_off(f"machine {peer} is gone")

    async def close(self) -> None:
        groups = [*self._outgoing.values(), *self._incoming.values()]
        for peer in {*self._outgoing, *self._incoming, *self._addresses}:
            self.forget(peer)
        ending: set[asyncio.Future[Any]] = {*self._receiving, *(group.closed for group in groups)}
        ending |= {sending for _, sending in self._sending.values()}
        if ending:
            await asyncio.wait(ending, timeout=self._timeout_s)
        self._threads.shutdown(wait=False)
        self.send_buffers.close()
        self.receive_buffers.close()
        self._store = None
        del self._backend

    def _make_store(self) -> TCPStore:
        """Listen at this host's own address, where by itself a store listens at all."""
        listener = socket.create_server((self._host, 0))
        host, port = listener.getsockname()
        return TCPStore(
            host,
            port,
            is_master=True,
            timeout=self._receive_timeout,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )
