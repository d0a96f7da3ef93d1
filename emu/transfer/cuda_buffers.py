"""Buffers with a twin in GPU memory."""

import torch

from emu.transfer.buffers import Buffers


class CudaBuffers(Buffers):
    """Each buffer is in page-locked host memory, where it is filled and verified, and in GPU memory, for the transport.

    The GPU is the process's current one. `upload` and `download` block until the bytes are there; they may be called from any
    thread, and copy on a stream of their own.
    """

    def __init__(self, num_buffers: int, buffer_bytes: int) -> None:
        super().__init__(num_buffers, buffer_bytes)
        self._host = torch.from_numpy(self.memory)
        self._pin(True)
        self.device_memory = torch.zeros(num_buffers * buffer_bytes, dtype=torch.uint8, device="cuda")
        torch.cuda.synchronize()
        self._stream = torch.cuda.Stream()

    @property
    def address(self) -> int:
        return self.device_memory.data_ptr()

    def tensor(self, index: int, num_bytes: int) -> torch.Tensor:
        """The first `num_bytes` bytes of a buffer in GPU memory (uint8)."""
        return self._part(self.device_memory, index, num_bytes)

    def upload(self, index: int, num_bytes: int) -> None:
        """Copy the first `num_bytes` bytes of a buffer from host to GPU memory."""
        self.copy(self._part(self._host, index, num_bytes), self.tensor(index, num_bytes))

    def download(self, index: int, num_bytes: int) -> None:
        """Copy the first `num_bytes` bytes of a buffer from GPU to host memory."""
        self.copy(self.tensor(index, num_bytes), self._part(self._host, index, num_bytes))

    def copy(self, source: torch.Tensor, destination: torch.Tensor) -> None:
        """Copy between host and GPU, or within the GPU."""
        with torch.cuda.stream(self._stream):
            destination.copy_(source, non_blocking=True)
            self._stream.synchronize()

    def close(self) -> None:
        """The host memory is ordinary again."""
        self._pin(False)

    def _part(self, memory: torch.Tensor, index: int, num_bytes: int) -> torch.Tensor:
        start = index * self.buffer_bytes
        return memory[start : start + num_bytes]

    def _pin(self, on: bool) -> None:
        """CUDA copies asynchronously, and at full speed, from and to page-locked memory only."""
        cudart = torch.cuda.cudart()
        if on:
            torch.cuda.check_error(cudart.cudaHostRegister(self._host.data_ptr(), self._host.nbytes, 0))
        else:
            torch.cuda.check_error(cudart.cudaHostUnregister(self._host.data_ptr()))
