"""The GPU's way to decode, as far as a CPU can run it: flex attention over block tables, compiled for the CPU."""

import random
import shutil

import pytest

torch = pytest.importorskip("torch")

from emu.execution.model import Executable  # noqa: E402
from emu.execution.torch_engine.architecture import Architecture  # noqa: E402
from emu.execution.torch_engine.attention import GatheredDecode  # noqa: E402
from emu.execution.torch_engine.chunk import Chunk  # noqa: E402
from emu.execution.torch_engine.cuda_graphs import DecodePass  # noqa: E402
from emu.execution.torch_engine.engine import load_engine  # noqa: E402
from emu.execution.torch_engine.kv_cache import PagedKVCache  # noqa: E402
from emu.execution.torch_engine.paged_decode import PagedDecode, decode_rows, padded_size  # noqa: E402

NUM_BLOCKS, BLOCK_TOKENS = 24, 16


def chunks_of(contexts):
    """A decode of each context, in blocks in any order and with one more than is in use."""
    order = list(range(NUM_BLOCKS))
    random.Random(sum(contexts)).shuffle(order)
    nums_blocks = [-(-context // BLOCK_TOKENS) for context in contexts]
    return [
        Chunk([10 + number], context - 1, [*(order.pop() for _ in range(num_blocks)), order[0]])
        for number, (context, num_blocks) in enumerate(zip(contexts, nums_blocks, strict=True))
    ]


def test_rows_beyond_the_batch_repeat_the_shortest_sequence():
    chunks = [Chunk([5], 20, [7, 3, 9]), Chunk([6], 2, [4]), Chunk([8], 16, [1, 0])]
    rows, tables = decode_rows(chunks, 4, BLOCK_TOKENS)
    assert rows.tolist() == [[5, 6, 8, 6], [20, 2, 16, 2], [3 * 16 + 4, 4 * 16 + 2, 0, 4 * 16 + 2]]
    assert tables.tolist() == [[7, 3], [4, 0], [1, 0], [4, 0]]
    assert [padded_size(number) for number in (1, 2, 3, 8, 9, 200)] == [1, 2, 4, 8, 16, 256]


compiles = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")


@pytest.mark.slow
@compiles
@pytest.mark.parametrize("contexts", [(5, 16, 17, 70), (1, 33, 48, 32), (3, 9, 70)])
def test_attention_by_block_tables_is_that_over_gathered_blocks(contexts):
    generator = torch.Generator().manual_seed(1)
    cache = PagedKVCache(2, NUM_BLOCKS, BLOCK_TOKENS, 2, 16, torch.float32, torch.device("cpu"))
    for layer in cache.layers:
        layer.normal_(generator=generator)
    chunks = chunks_of(contexts)
    q = torch.randn(len(chunks), 8, 16, generator=generator)
    with torch.inference_mode():
        paged, gathered = PagedDecode.of(cache, chunks, NUM_BLOCKS), GatheredDecode(cache, chunks)
        for layer in range(2):
            torch.testing.assert_close(paged(layer, q), gathered(layer, q))


@pytest.mark.slow
@compiles
def test_the_pass_that_a_graph_holds_gives_the_engines_logits():
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    executable = Executable(Architecture.from_config(config, "here"), "fp32", "")
    engine = load_engine(executable, num_blocks=NUM_BLOCKS, block_tokens=BLOCK_TOKENS, device="cpu", num_threads=0)
    chunks = chunks_of((5, 17, 70))
    for chunk in chunks:
        engine.step([Chunk([number % 64 for number in range(chunk.num_before)], 0, chunk.blocks, wants_token=False)])
    rows, tables = decode_rows(chunks, 4, BLOCK_TOKENS)
    tables = torch.nn.functional.pad(tables, (0, NUM_BLOCKS - tables.shape[1]))
    with torch.inference_mode():
        found = engine.model.logits(engine.model(DecodePass(engine.cache, rows, tables)))[:3]
    torch.testing.assert_close(found, engine.logits(chunks))
    assert found.std() > 0.1
