"""Actors that hold and pull payloads, and whose transfers can be made to go wrong."""

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import ray

from emu.runtime.transfer_host import TransferHost
from emu.runtime.transfer_mesh import TransferMesh
from emu.transfer.destination import Pulled
from emu.transfer.frames import Frame
from emu.transfer.payload import KVPayload
from emu.transfer.settings import TransferSettings


class End(TransferHost):
    """One end. `goes_wrong` is how many of the next messages do, by what happens to them on the way."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.goes_wrong: dict[str, int] = {}
        self.kept: list[bytes] | None = None  # what was received, message by message
        self._kept_back: list[tuple] = []
        self._started: asyncio.Task | None = None

    async def open_transfer(self, host: str) -> object:
        address = await super().open_transfer(host)
        self._receive, self.transfer.transport.receive = self.transfer.transport.receive, self._receive_wrong
        return address

    async def go_wrong(self, **num_messages: int) -> None:
        self.goes_wrong = num_messages

    async def hurry(self, timeout_s: float) -> None:
        """Wait so long for a message from now on."""
        self.transfer.destination._settings = replace(self.transfer_settings, timeout_s=timeout_s)

    async def keep(self) -> None:
        """From now on keep what is received."""
        self.kept = []

    async def kept_bytes(self) -> bytes:
        kept, self.kept = self.kept, None
        return b"".join(kept)

    async def hold_anothers(self, request_id: int, other: int, num_bytes: int) -> None:
        """Hold the payload of request `other` under the name of `request_id`."""
        self.transfer.hold((request_id, 1), KVPayload(other, 1, num_bytes))

    async def pull_several(self, source: int, keys: list[tuple[int, int]], num_bytes: int, num_pieces: int = 1) -> list[Pulled]:
        """Pull these payloads of `num_bytes` all at once."""
        return await asyncio.gather(*(self.pull(source, *key, num_bytes, num_pieces) for key in keys))

    async def start_pull(self, *arguments) -> None:
        self._started = asyncio.ensure_future(self.pull(*arguments))

    async def cancel_pull(self) -> None:
        self._started.cancel()
        await asyncio.wait({self._started})

    async def expected(self, request_id: int, attempt: int, num_bytes: int) -> bytes:
        """The payload, word by word and without what fills it."""
        first = np.empty(8, np.uint8)
        KVPayload(request_id, attempt, 8).fill(0, first)
        words = first.view(np.uint64) + np.arange(num_bytes // 8 + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return words.tobytes()[:num_bytes]

    def _is_next(self, what: str) -> bool:
        left = self.goes_wrong.get(what, 0)
        self.goes_wrong[what] = max(0, left - 1)
        return left > 0

    @asynccontextmanager
    async def _receive_wrong(self, peer, ticket, num_bytes):
        place = len(self.kept or ())  # they are begun in the order of the payload, and may end in another
        if self.kept is not None:
            self.kept.append(b"")
        async with self._receive(peer, ticket, num_bytes) as received:
            if self._is_next("corrupt"):
                received = received.copy()
                received[len(received) // 2] ^= 1
            if self._is_next("truncated"):
                received = received[:-1]
            if self._is_next("stuck"):
                await asyncio.sleep(3600)
            if self.kept is not None:
                self.kept[place] = received.tobytes()
            yield received

    def _send_frame(self, peer: int, *fields) -> None:
        if fields[0] == Frame.READY:
            if self._is_next("lost"):
                return
            if self._is_next("kept back"):
                self._kept_back.append((peer, *fields))
                return
            if self._is_next("twice"):
                super()._send_frame(peer, *fields)
        super()._send_frame(peer, *fields)
        if fields[0] == Frame.READY:
            for frame in self._kept_back:
                super()._send_frame(*frame)
            self._kept_back = []


class Ends(TransferMesh):
    """Connected ends by their number, in the order of `nodes`."""

    def __init__(self, settings: TransferSettings, nodes: list[str]) -> None:
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import tests
        super().__init__(settings, nodes, End)

    def is_idle(self, index: int) -> bool:
        """Whether nothing is pulled or sent, and all buffers are free."""
        return tuple(self.call(index, "transfer_state")) == (0, 0, 0)


def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    """Whether it comes true before long."""
    give_up = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.02)
    return True
