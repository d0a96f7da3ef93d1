"""Messages between GPU processes of one node: copied by the destination out of GPU memory that the source has exported."""

import asyncio
import pickle
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.multiprocessing.reductions import reduce_tensor

from emu.transfer.cuda_buffers import CudaBuffers
from emu.transfer.settings import TransferError
from emu.transfer.transport import Ticket, Transport, TransportError
from emu.transfer.worker import give_way


class Export(NamedTuple):
    """The send buffers of a process in GPU memory: the node, by its boot, and what opens them there (torch's, pickled)."""

    boot_id: str
    handle: bytes


class CudaIpc(Transport):
    """Between processes of one node that see the same cards. A ticket is the number of the source's buffer.

    `publish` copies the buffer to the card and returns when it is there: 4 MiB take 0.2 ms over PCIe 4.0 (25 GB/s).
    """

    send_buffers: CudaBuffers
    receive_buffers: CudaBuffers

    def __init__(self, num_buffers: int, buffer_bytes: int) -> None:
        if not torch.cuda.is_available():
            raise TransferError("transfer=cuda_ipc needs a GPU on every node, and one has none; choose another transfer")
        self.send_buffers = CudaBuffers(num_buffers, buffer_bytes)
        self.receive_buffers = CudaBuffers(num_buffers, buffer_bytes)
        self._threads = ThreadPoolExecutor(num_buffers, "kv-cuda", give_way)
        self._export: Export | None = None
        self._peers: dict[int, torch.Tensor] = {}  # their send buffers

    async def open(self) -> Export:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._export = Export(boot_id, pickle.dumps(reduce_tensor(self.send_buffers.device_memory)))
        return self._export

    async def connect(self, addresses: dict[int, Export]) -> None:
        loop = asyncio.get_running_loop()
        assert self._export is not None  # it is open
        for peer, (boot_id, handle) in addresses.items():
            if boot_id != self._export.boot_id:
                raise TransportError(
                    f"transfer=cuda_ipc: machine {peer} is on another node, from where its GPU memory cannot be read"
                )
            if handle == self._export.handle:  # CUDA opens no memory in the process that has exported it
                self._peers[peer] = self.send_buffers.device_memory
            else:
                self._peers[peer] = await loop.run_in_executor(self._threads, _open, handle)

    def publish(self, peer: int, buffer: int, num_bytes: int) -> Ticket:
        self.send_buffers.upload(buffer, num_bytes)
        return buffer

    async def withdraw(self, peer: int, ticket: Ticket) -> None:
        """The destination has said that it is through with it."""

    @asynccontextmanager
    async def receive(self, peer: int, ticket: Ticket, num_bytes: int) -> AsyncIterator[np.ndarray]:
        buffer = await self.receive_buffers.acquire()
        try:
            if peer not in self._peers:
                raise TransportError(f"machine {peer} is gone")
            await self._until_over(self._copy, self._peers[peer], ticket, buffer, num_bytes)
            yield self.receive_buffers.view(buffer, num_bytes)
        finally:
            self.receive_buffers.release(buffer)

    async def _until_over(self, copy, *arguments) -> None:
        """Run a copy on a thread. It cannot be stopped: who is cancelled meanwhile waits for its end."""
        copying = asyncio.get_running_loop().run_in_executor(self._threads, copy, *arguments)
        try:
            await asyncio.shield(copying)
        except asyncio.CancelledError:
            await asyncio.wait({copying})
            raise
        except RuntimeError as error:
            raise TransportError(f"CUDA: {str(error).strip().splitlines()[0]}") from error

    def _copy(self, memory: torch.Tensor, sent: int, buffer: int, num_bytes: int) -> None:
        start = sent * self.receive_buffers.buffer_bytes
        self.receive_buffers.copy(memory[start : start + num_bytes], self.receive_buffers.tensor(buffer, num_bytes))
        self.receive_buffers.download(buffer, num_bytes)

    def forget(self, peer: int) -> None:
        self._peers.pop(peer, None)

    async def close(self) -> None:
        self._peers.clear()
        self._threads.shutdown(wait=False)
        self.send_buffers.close()
        self.receive_buffers.close()


def _open(handle: bytes) -> torch.Tensor:
    rebuild, arguments = pickle.loads(handle)
    try:
        return rebuild(*arguments)
    except RuntimeError as error:
        raise TransportError(f"CUDA: {str(error).strip().splitlines()[0]}") from error
