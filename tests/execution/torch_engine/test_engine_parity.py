"""The engine computes what transformers computes, whatever the batch and wherever the blocks."""

import json
import random

import pytest

from tests.tiny_checkpoints import CHECKPOINTS, save_checkpoint

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from emu.execution.model import Executable  # noqa: E402
from emu.execution.torch_engine.architecture import Architecture  # noqa: E402
from emu.execution.torch_engine.engine import Chunk, load_engine  # noqa: E402
from emu.execution.torch_engine.generate import generate  # noqa: E402
from emu.execution.torch_engine.sampling import GREEDY  # noqa: E402

BLOCK_TOKENS, NUM_BLOCKS, NUM_DECODES = 4, 120, 64
PROMPT_LENGTHS = (1, 7, 16, 37)


@pytest.fixture(scope="module", params=CHECKPOINTS)
def models(request, tmp_path_factory):
    """An engine and transformers' model with the same weights."""
    folder = tmp_path_factory.mktemp(request.param)
    theirs = save_checkpoint(folder, request.param)
    return engine_of(folder), theirs


def engine_of(folder, dtype="fp32"):
    executable = Executable(Architecture.from_folder(str(folder)), dtype, str(folder))
    return load_engine(executable, num_blocks=NUM_BLOCKS, block_tokens=BLOCK_TOKENS, device="cpu", num_threads=1)


def prompts(vocab_size):
    draw = random.Random(5)
    return [[draw.randrange(vocab_size) for _ in range(length)] for length in PROMPT_LENGTHS]


def scrambled_blocks():
    """A disjoint, unordered set of blocks for each prompt and its decodes."""
    order = list(range(NUM_BLOCKS))
    random.Random(6).shuffle(order)
    nums_blocks = [-(-(length + NUM_DECODES) // BLOCK_TOKENS) for length in PROMPT_LENGTHS]
    return [[order.pop() for _ in range(num_blocks)] for num_blocks in nums_blocks]


def their_logits(theirs, token_ids):
    with torch.inference_mode():
        return theirs(torch.tensor([token_ids])).logits[0]


def assert_close(ours, theirs):
    assert theirs.abs().max() > 1  # the tolerance below is small against it
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_prefill_and_64_decodes_of_a_batch_of_unequal_lengths(models):
    engine, theirs = models
    sequences = prompts(engine.architecture.vocab_size)
    blocks = scrambled_blocks()
    ours = [[] for _ in sequences]
    draw = random.Random(7)
    chunks = [Chunk(ids, 0, own) for ids, own in zip(sequences, blocks, strict=True)]
    for _ in range(NUM_DECODES + 1):
        logits = engine.logits(chunks)
        for sequence, row, of_sequence in zip(sequences, logits, ours, strict=True):
            of_sequence.append(row)
            sequence.append(draw.randrange(engine.architecture.vocab_size))
        chunks = [Chunk(ids[-1:], len(ids) - 1, own) for ids, own in zip(sequences, blocks, strict=True)]
    for length, sequence, logits in zip(PROMPT_LENGTHS, sequences, ours, strict=True):
        assert_close(torch.stack(logits), their_logits(theirs, sequence[:-1])[length - 1 :])


def test_a_prompt_in_parts_beside_decodes_and_another_prompt(models):
    engine, theirs = models
    decoding, whole, _, parted = prompts(engine.architecture.vocab_size)
    first, second, _, last = scrambled_blocks()
    expected = their_logits(theirs, [*decoding, 11, 12, 13])
    engine.step([Chunk(decoding, 0, first, wants_token=False)])
    steps = [
        [Chunk(parted[:5], 0, last, wants_token=False), Chunk([11], 1, first), Chunk(whole, 0, second)],
        [Chunk([12], 2, first), Chunk(parted[5:6], 5, last, wants_token=False)],
        [Chunk(parted[6:24], 6, last, wants_token=False), Chunk([13], 3, first)],
        [Chunk(parted[24:], 24, last)],
    ]
    found = [engine.logits(chunks) for chunks in steps]
    assert_close(found[0], torch.stack([expected[1], their_logits(theirs, whole)[-1]]))
    assert_close(found[1][0], expected[2])
    assert_close(found[2][0], expected[3])
    assert_close(found[3][0], their_logits(theirs, parted)[-1])
    assert engine.step(steps[0]) == [-1, *found[0].argmax(-1).tolist()]


def test_greedy_tokens_are_those_of_their_generate(models):
    engine, theirs = models
    for prompt in prompts(engine.architecture.vocab_size):
        ids = torch.tensor([prompt])
        output = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False)
        assert generate(engine, prompt, 32, (), GREEDY).token_ids == output[0, len(prompt) :].tolist()


def test_layers_are_told_in_order_once_written(models):
    engine, _ = models
    seen = []
    blocks = engine.cache.allocate(2)
    engine.cache.layers[0].zero_()
    engine.step([Chunk([1, 2, 3, 4, 5], 0, blocks)], lambda layer: seen.append((layer, bool(engine.cache.layers[layer].any()))))
    engine.cache.release(blocks)
    assert seen == [(layer, True) for layer in range(engine.architecture.num_layers)]


def test_weights_in_bf16_are_read_exactly_and_computed_in_bf16_nearly(tmp_path):
    theirs = save_checkpoint(tmp_path, "llama_llama3_rope", "bfloat16")
    assert Architecture.from_folder(str(tmp_path)).dtype == "bf16"
    prompt = prompts(199)[3]
    expected = their_logits(theirs, prompt)[-1:]
    chunk = Chunk(prompt, 0, scrambled_blocks()[3])
    assert_close(engine_of(tmp_path).logits([chunk]), expected)
    in_bf16 = engine_of(tmp_path, "bf16").logits([chunk])
    # 8 bits of mantissa through 3 layers, against logits of up to 10 and more.
    torch.testing.assert_close(in_bf16, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))


def test_the_older_spelling_of_rope_scaling_is_the_same_architecture(tmp_path):
    save_checkpoint(tmp_path, "llama_llama3_rope")
    new = Architecture.from_folder(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    rope = config.pop("rope_parameters")
    rope_theta = rope.pop("rope_theta")
    for key in ("rope_type", "type"):
        scaling = {key if name == "rope_type" else name: value for name, value in rope.items()}
        (tmp_path / "config.json").write_text(json.dumps({**config, "rope_theta": rope_theta, "rope_scaling": scaling}))
        assert Architecture.from_folder(str(tmp_path)) == new
    assert new.rope.kind == "llama3"


def test_num_params_is_the_number_of_weights(models):
    engine, theirs = models
    assert engine.architecture.num_params == sum(weight.numel() for weight in theirs.parameters())
