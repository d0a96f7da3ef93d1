"""What a transport is: one process's end of a way to move bytes between processes."""

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np

from emu.transfer.buffers import Buffers

Ticket = int | tuple  # msgpack carries it to the destination


class TransportError(ConnectionError):
    """A message could not be moved: the transport says so, or the peer is gone. What was to come is not there."""


class Transport(ABC):
    """Moves messages of bytes between this process and its peers, which are known by their host's address.

    The source fills one of its `send_buffers` and publishes it; the ticket it gets goes to the destination by another way
    (`KVTransfer`), which receives with it. Then the source withdraws what it has published and has its buffer back. Whatever
    takes long is done off the event loop, and everything is to be called from the event loop that `open` was called from.

    Every transport passes tests/transfer/test_contract.py.
    """

    send_buffers: Buffers
    receive_buffers: Buffers | None = None  # where it has its own

    def touch(self, num_bytes: int) -> None:
        """Have the memory for messages of up to so many bytes."""
        for buffers in (self.send_buffers, self.receive_buffers):
            if buffers is not None:
                buffers.touch(num_bytes)

    @abstractmethod
    async def open(self) -> Any:
        """Make this end ready; returns what its peers need to `connect` to it, which travels by Ray."""

    @abstractmethod
    async def connect(self, addresses: dict[int, Any]) -> None:
        """Get to know peers by what their `open` returned. Moves nothing yet."""

    @abstractmethod
    def publish(self, peer: int, buffer: int, num_bytes: int) -> Ticket:
        """Let `peer` receive the first `num_bytes` bytes of send buffer `buffer`, which stay as they are until withdrawn."""

    @abstractmethod
    async def withdraw(self, peer: int, ticket: Ticket) -> None:
        """Return once what was published is not read any more, received or not: before long."""

    @abstractmethod
    def receive(self, peer: int, ticket: Ticket, num_bytes: int) -> AbstractAsyncContextManager[np.ndarray]:
        """A context whose value are the bytes that `peer` published (uint8), readable until it is left.

        It may be cancelled at any time. Raises TransportError where they do not come.
        """

    def decline(self, peer: int, ticket: Ticket, num_bytes: int) -> None:  # noqa: B027 - most have nothing to do
        """This end will not `receive` what `peer` published. Nothing, if it has."""

    def forget(self, peer: int) -> None:  # noqa: B027 - most have nothing to forget
        """The peer is gone: whatever waits for it ends with TransportError."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of memory and connections."""
