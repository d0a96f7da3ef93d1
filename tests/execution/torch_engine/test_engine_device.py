"""Devices, number formats, memory and chunks that an engine refuses, each in one line and before it allocates."""

import pytest

torch = pytest.importorskip("torch")

from emu.execution.model import Executable  # noqa: E402
from emu.execution.torch_engine import device as device_module  # noqa: E402
from emu.execution.torch_engine.architecture import Architecture  # noqa: E402
from emu.execution.torch_engine.device import available_bytes, parse_device, parse_dtype  # noqa: E402
from emu.execution.torch_engine.engine import Chunk, load_engine  # noqa: E402
from emu.execution.torch_engine.errors import EngineError  # noqa: E402

ARCHITECTURE = Architecture.from_config(
    {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 20,
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 10,
    },
    "here",
)


def load(dtype="fp32", device="cpu", num_blocks=4):
    executable = Executable(ARCHITECTURE, dtype, "")
    return load_engine(executable, num_blocks=num_blocks, block_tokens=4, device=device, num_threads=0)


@pytest.mark.parametrize("text", ["tpu", "cpu:0", "cuda:", "cuda:x", "cuda:-1", ""])
def test_a_device_that_is_none(text):
    with pytest.raises(EngineError, match=f"^device={text}: expected cpu, cuda or cuda:N$"):
        parse_device(text)


def test_a_device_that_this_host_lacks(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(EngineError, match=r"^device=cuda: expected cpu: torch sees no CUDA device here$"):
        load(device="cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert parse_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(EngineError, match=r"^device=cuda:2: expected cpu or cuda:0 to cuda:1$"):
        parse_device("cuda:2")


def test_a_dtype_that_is_none():
    with pytest.raises(EngineError, match=r"^dtype=fp8: expected one of fp32, fp16, bf16$"):
        load("fp8")
    assert parse_dtype("bf16", torch.device("cpu")) == torch.bfloat16


def test_a_model_larger_than_memory_is_told_with_the_bytes_needed_and_had(monkeypatch):
    monkeypatch.setattr(device_module, "available_bytes", lambda device: 300_000_000)
    monkeypatch.setattr(torch, "empty", None)  # nothing is allocated
    weights, kv = 888 * 4, 2_000_000 * 64
    assert weights == ARCHITECTURE.num_params * 4
    with pytest.raises(EngineError) as refusal:
        load(num_blocks=500_000)
    needed = f"weights {weights:,} bytes + KV cache of 2,000,000 tokens {kv:,} + reserve 268,435,456"
    total = f"{weights + kv + 268_435_456:,}"
    assert str(refusal.value) == f"the model does not fit cpu: {needed} = {total} bytes needed, 300,000,000 free"


def test_available_memory_is_that_of_the_host_at_most():
    pages = device_module.os.sysconf("SC_PHYS_PAGES") * device_module.os.sysconf("SC_PAGE_SIZE")
    assert 0 < available_bytes(torch.device("cpu")) <= pages


@pytest.mark.parametrize(
    ("chunk", "line"),
    [
        (Chunk([], 0, [0]), "a chunk without tokens: expected at least one"),
        (Chunk([1, 20], 0, [0]), "token id 20: expected 0 to 19, the model's vocabulary"),
        (Chunk([-1], 0, [0]), "token id -1: expected 0 to 19, the model's vocabulary"),
        (Chunk([1] * 5, 6, [0, 1, 2]), "a sequence of 11 tokens: the model's context has 10"),
        (Chunk([1], 8, [0, 1]), "a sequence of 9 tokens in 2 blocks of 4"),
    ],
)
def test_a_chunk_that_no_pass_can_take(chunk, line):
    with pytest.raises(EngineError, match=f"^{line}$"):
        load().step([chunk])
