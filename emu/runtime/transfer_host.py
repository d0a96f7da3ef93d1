"""A host that moves KV payloads: its end of the transport, and the frames that go with it."""

import asyncio
from typing import Any, NamedTuple

import numpy as np
import ray

from emu.runtime.host import Endpoint, Host, HostSettings
from emu.runtime.wire import FrameKind
from emu.transfer.counts import TransferCounts
from emu.transfer.destination import Pulled
from emu.transfer.kv_transfer import KVTransfer
from emu.transfer.loopback import Loopback
from emu.transfer.object_store import ObjectStore
from emu.transfer.payload import KVPayload
from emu.transfer.production import TimedProduction
from emu.transfer.settings import TransferSettings
from emu.transfer.transport import Transport

# Ray copies what an actor returns on threads of their own: that must not delay the control plane.
KV_GROUP = "kv"
NUM_KV_THREADS = 1
PROBE_REQUEST = -1  # payloads of no request of the workload


class TransferState(NamedTuple):
    """What one end of the transfers has in hand."""

    num_held: int
    num_pulling: int
    num_taken_buffers: int


class TransferHost(Host):
    """The share that a host of machines has in the transfers, or all there is of an actor that only measures or tests them."""

    def __init__(self, address: int, settings: HostSettings, transfer_settings: TransferSettings) -> None:
        super().__init__(address, settings)
        self.transfer_settings = transfer_settings
        self.transport: Transport  # once it is open
        self.transfer: KVTransfer

    # --- called by Ray ------------------------------------------------------------------------------------------------

    async def open_transfer(self, host: str) -> Any:
        """Make the transport; returns what the others need to reach it."""
        self.transport = self.transfer_settings.make(host)
        is_shared = len(self.hosted) > 1  # by machines that hand over to each other
        transport = Loopback(self.transport, self.address) if is_shared else self.transport
        self.transfer = KVTransfer(transport, self.transfer_settings, self._send_frame)
        return await self.transfer.open()

    async def connect_to(self, endpoints: dict[int, Endpoint], addresses: dict[int, Any]) -> None:
        """Connect to the control ports and transports of the other parties."""
        await self.transfer.connect(addresses)
        await self.connect(endpoints)

    @ray.method(concurrency_group=KV_GROUP)
    async def take(self, buffer: int, num_bytes: int) -> np.ndarray:
        """For the object store."""
        assert isinstance(self.transport, ObjectStore)
        return self.transport.take(buffer, num_bytes)

    async def hold(self, request_id: int, attempt: int, num_bytes: int, num_pieces: int = 1, production_s: float = 0.0) -> None:
        """Hold a payload whose pieces come into being from now on for so many wall seconds."""
        now_s = asyncio.get_running_loop().time()
        payload = KVPayload(request_id, attempt, num_bytes, num_pieces)
        self.transfer.hold((request_id, attempt), payload, TimedProduction(now_s, now_s + production_s))

    async def touch(self, num_bytes: int) -> None:
        """Have the memory that payloads of up to so many bytes take."""
        await asyncio.to_thread(self.transfer.transport.touch, num_bytes)

    async def free(self, request_id: int, attempt: int) -> None:
        self.transfer.free((request_id, attempt))

    async def pull(
        self, source: int, request_id: int, attempt: int, num_bytes: int, num_pieces: int = 1, production_s: float = 0.0
    ) -> Pulled:
        """Pull and verify a payload that `source` holds."""
        until_s = asyncio.get_running_loop().time() + production_s
        payload = KVPayload(request_id, attempt, num_bytes, num_pieces)
        return await self.transfer.pull(source, (request_id, attempt), payload, until_s)

    async def take_counts(self) -> TransferCounts:
        return self.transfer.take_counts()

    async def transfer_state(self) -> TransferState:
        source, destination, transport = self.transfer.source, self.transfer.destination, self.transfer.transport
        both = [buffers for buffers in (transport.send_buffers, transport.receive_buffers) if buffers is not None]
        num_taken = sum(buffers.num_buffers - buffers.num_free for buffers in both)
        return TransferState(source.num_held, destination.num_pulling, num_taken)

    # --- host ---------------------------------------------------------------------------------------------------------

    def on_peer_lost(self, peer: int) -> None:
        if hasattr(self, "transfer"):
            self.transfer.on_peer_lost(peer)

    def on_transfer_frame(self, peer: int, *fields: Any) -> None:
        self.transfer.on_frame(peer, *fields)

    def _send_frame(self, peer: int, *fields: Any) -> None:
        if peer == self.address:
            asyncio.get_running_loop().call_soon(self.transfer.on_frame, peer, *fields)
        elif (channel := self.channels.get(peer)) is not None:
            channel.send(FrameKind.TRANSFER, *fields)
