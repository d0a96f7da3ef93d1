"""Buffers in GPU memory, and what is said where there is none. What moves through them: test_contract.py."""

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from emu.transfer.cuda_buffers import CudaBuffers
from emu.transfer.cuda_ipc import CudaIpc
from emu.transfer.settings import TransferError
from emu.transfer.torch_distributed import TorchDistributed
from emu.transfer.transport import TransportError

with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
BUFFER_BYTES = 1 << 20


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("cuda_ipc", lambda: CudaIpc(2, BUFFER_BYTES)),
        ("nccl", lambda: TorchDistributed("nccl", "127.0.0.1", 2, BUFFER_BYTES, 5.0)),
    ],
)
def test_without_a_gpu_one_line_says_so(name, make):
    with pytest.raises(TransferError, match=rf"^transfer={name} needs a GPU .*; choose another transfer$"):
        make()


@with_gpu
def test_bytes_come_back_from_the_gpu():
    buffers = CudaBuffers(3, BUFFER_BYTES)
    sent = np.arange(5001, dtype=np.uint64).view(np.uint8)[:40003]
    for index in (0, 2):
        buffers.view(index, sent.size)[:] = sent
        buffers.upload(index, sent.size)
        buffers.view(index, sent.size).fill(0)
    assert buffers.device_memory.is_cuda and not buffers.tensor(1, BUFFER_BYTES).any()
    for index in (0, 2):
        buffers.download(index, sent.size)
        np.testing.assert_array_equal(buffers.view(index, sent.size), sent)
    buffers.close()


@with_gpu
async def test_memory_of_another_node_is_refused():
    transport = CudaIpc(1, BUFFER_BYTES)
    export = await transport.open()
    await transport.connect({0: export})
    with pytest.raises(TransportError, match="machine 1 is on another node"):
        await transport.connect({1: export._replace(boot_id="another")})
    await transport.close()
