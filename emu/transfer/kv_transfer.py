"""Both ends of the transfers of one machine, over whichever transport was chosen."""

from collections.abc import Callable
from typing import Any

from emu.transfer.counts import TransferCounts
from emu.transfer.destination import Destination, Pulled
from emu.transfer.frames import Frame
from emu.transfer.payload import Payload
from emu.transfer.production import Production
from emu.transfer.settings import TransferSettings
from emu.transfer.source import AT_ONCE, Key, Source
from emu.transfer.transport import Transport


class KVTransfer:
    """Holds payloads for others and pulls theirs, by messages of bytes over `transport` and frames by `send`.

    `send(peer, *fields)` delivers a frame to the peer's `on_frame(own address, *fields)`, in order or not at all.
    """

    def __init__(self, transport: Transport, settings: TransferSettings, send: Callable[..., None]) -> None:
        self.transport = transport
        self.source = Source(transport, settings, send)
        self.destination = Destination(transport, settings, send)
        self._handlers: dict[int, Callable[..., None]] = {
            Frame.PULL: self.source.on_pull,
            Frame.DONE: self.source.on_done,
            Frame.STOP: self.source.on_stop,
            Frame.READY: self.destination.on_ready,
            Frame.GONE: self.destination.on_gone,
        }

    async def open(self) -> Any:
        """Make this end ready. Returns the address for the `connect` of others."""
        return await self.transport.open()

    async def connect(self, addresses: dict[int, Any]) -> None:
        await self.transport.connect(addresses)

    def hold(self, key: Key, payload: Payload, production: Production = AT_ONCE) -> None:
        """Let others pull this until `free`."""
        self.source.hold(key, payload, production)

    def free(self, key: Key) -> None:
        self.source.free(key)

    async def pull(self, source: int, key: Key, payload: Payload, until_s: float = 0.0) -> Pulled:
        """See `Destination.pull`."""
        return await self.destination.pull(source, key, payload, until_s)

    def take_counts(self) -> TransferCounts:
        return self.destination.take_counts()

    def on_frame(self, peer: int, kind: int, *fields) -> None:
        self._handlers[kind](peer, *fields)

    def on_peer_lost(self, peer: int) -> None:
        """The process of `peer` is gone."""
        self.transport.forget(peer)
        self.source.on_peer_lost(peer)
        self.destination.on_peer_lost(peer)
