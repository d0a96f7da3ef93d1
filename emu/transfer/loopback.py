"""What a process pulls from itself, where several machines share it: read where its source has written it."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import numpy as np

from emu.transfer.transport import Ticket, Transport


class Loopback(Transport):
    """`transport` to all peers but `own`, this process's address, for which a ticket is the number of a send buffer."""

    def __init__(self, transport: Transport, own: int) -> None:
        self._transport = transport
        self._own = own
        self.send_buffers = transport.send_buffers
        self.receive_buffers = transport.receive_buffers

    async def open(self) -> Any:
        return await self._transport.open()

    async def connect(self, addresses: dict[int, Any]) -> None:
        await self._transport.connect({peer: address for peer, address in addresses.items() if peer != self._own})

    def publish(self, peer: int, buffer: int, num_bytes: int) -> Ticket:
        return buffer if peer == self._own else self._transport.publish(peer, buffer, num_bytes)

    async def withdraw(self, peer: int, ticket: Ticket) -> None:
        if peer != self._own:
            await self._transport.withdraw(peer, ticket)

    def receive(self, peer: int, ticket: Ticket, num_bytes: int) -> AbstractAsyncContextManager[np.ndarray]:
        if peer != self._own:
            return self._transport.receive(peer, ticket, num_bytes)
        assert isinstance(ticket, int)
        return self._view(ticket, num_bytes)

    @asynccontextmanager
    async def _view(self, buffer: int, num_bytes: int) -> AsyncIterator[np.ndarray]:
        yield self.send_buffers.view(buffer, num_bytes)

    def decline(self, peer: int, ticket: Ticket, num_bytes: int) -> None:
        if peer != self._own:
            self._transport.decline(peer, ticket, num_bytes)

    def forget(self, peer: int) -> None:
        self._transport.forget(peer)

    async def close(self) -> None:
        await self._transport.close()
