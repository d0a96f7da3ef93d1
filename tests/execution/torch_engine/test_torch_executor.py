"""Batches executed one after the other, without any runtime: the tokens are those that the model writes for a request alone."""

import numpy as np
import pytest

from emu.core.batch import Batch, DecodeJoin, Prefill

torch = pytest.importorskip("torch")

from emu.execution.model import random_model  # noqa: E402
from emu.execution.prompts import Prompts  # noqa: E402
from emu.execution.torch_engine.engine import load_engine  # noqa: E402
from emu.execution.torch_engine.executor import TorchExecutor  # noqa: E402
from emu.execution.torch_engine.generate import generate  # noqa: E402
from emu.execution.torch_engine.sampling import GREEDY  # noqa: E402

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
}
PROMPT_TOKENS = np.array([37, 20, 5])
OUTPUT_TOKENS = 10
NUM_BLOCKS, BLOCK_TOKENS = 24, 4


def make_engine():
    executable = random_model("small", "fp32", CONFIG).executable
    return load_engine(executable, num_blocks=NUM_BLOCKS, block_tokens=BLOCK_TOKENS, device="cpu", num_threads=0)


def make_executor(engine=None, stop_ids=(), output_tokens=OUTPUT_TOKENS):
    prompts = Prompts(PROMPT_TOKENS, CONFIG["vocab_size"], seed=3)
    return TorchExecutor(engine or make_engine(), prompts, [output_tokens] * 3, stop_ids, 0.0, 1.0, seed=0)


@pytest.fixture(scope="module")
def alone():
    engine = make_engine()
    prompts = Prompts(PROMPT_TOKENS, CONFIG["vocab_size"], seed=3)
    return [tuple(generate(engine, prompts.ids(request), OUTPUT_TOKENS, (), GREEDY).token_ids) for request in range(3)]


def batch(prefills=(), joins=(), leaves=(), num_decodes=0):
    return Batch(tuple(prefills), tuple(joins), tuple(leaves), num_decodes, 0, 0)


def run(executor, of_batch, num_steps=1):
    """Run steps of a batch; returns what finished, by request."""
    answers = {}
    executor.start(of_batch)
    for _ in range(num_steps):
        executor.begin_step()
        stepped = executor.step()
        answers |= {answer.request_id: answer for answer in stepped.answers}
        assert tuple(answer.request_id for answer in stepped.answers) == stepped.finished
        executor.end_step(stepped)
    return answers


def prefill(request, num_generated=0, attempt=1):
    return Prefill(request, attempt, int(PROMPT_TOKENS[request]) + num_generated, num_generated)


def join(request, num_generated=1, attempt=1):
    return DecodeJoin(request, attempt, int(PROMPT_TOKENS[request]) + num_generated - 1, num_generated)


def test_together_in_chunks_and_with_pauses(alone):
    """Request 0 in two chunks, the second with 1 and beside it; 1 pauses for three steps while 2 is prefilled and joins."""
    engine = make_engine()
    executor = make_executor(engine)
    run(executor, batch([Prefill(0, 1, 16, 0, 0, 21)]))
    run(executor, batch([Prefill(0, 1, 21, 0, 16, 0), prefill(1)]))
    run(executor, batch(joins=[join(0), join(1)]), num_steps=4)
    run(executor, batch([prefill(2)], leaves=[1]))
    answers = run(executor, batch(joins=[join(2)]), num_steps=2)
    answers |= run(executor, batch(joins=[join(1, 5)]), num_steps=7)
    assert [answers[request].token_ids for request in range(3)] == alone
    assert not any(answer.stopped for answer in answers.values())
    assert engine.cache.num_free_blocks == NUM_BLOCKS


@pytest.mark.parametrize("chunk_bytes", [64, 1 << 20])
def test_handed_over(alone, chunk_bytes):
    """The bytes of the source's cache, and the tokens that are out, are all that the destination needs."""
    source, destination = make_executor(), make_executor()
    run(source, batch([prefill(0)]))
    out = source.cache_of(0, 1, 37)
    into = destination.expect(0, 1, 37, is_real=True)
    num_bytes = 37 * source._engine.cache.bytes_of(1)
    for start in range(0, num_bytes, chunk_bytes):
        piece = np.empty(min(chunk_bytes, num_bytes - start), np.uint8)
        out.read(start, piece)
        into.write(start, piece)
    destination.complete(0, 1, source.output_ids(0, 1))
    source.drop(0, 1)
    assert source._engine.cache.num_free_blocks == NUM_BLOCKS
    assert run(destination, batch(joins=[join(0)]), num_steps=9)[0].token_ids == alone[0]


def test_taken_from_an_emulated_machine():
    """Bytes that mean nothing become numbers, and a token of the prompt stands for the one that nobody wrote."""
    engine = make_engine()
    executor = make_executor(engine)
    into = executor.expect(1, 1, 20, is_real=False)
    num_bytes = 20 * engine.cache.bytes_of(1)
    into.write(0, np.random.default_rng(0).integers(256, size=num_bytes, dtype=np.uint8))
    values = np.empty(num_bytes, np.uint8)
    into.read(0, values)
    magnitudes = np.abs(values.view(np.float32))
    assert magnitudes.min() >= 0.25 and magnitudes.max() < 0.5
    assert len(np.unique(magnitudes)) > 1000
    executor.complete(1, 1, b"")
    answer = run(executor, batch(joins=[join(1)]), num_steps=9)[1]
    assert answer.token_ids[0] == Prompts(PROMPT_TOKENS, 256, seed=3).ids(1)[0]
    assert len(answer.token_ids) == OUTPUT_TOKENS


def test_evicted_and_prefilled_again(alone):
    engine = make_engine()
    executor = make_executor(engine)
    run(executor, batch([prefill(0)]))
    run(executor, batch(joins=[join(0)]), num_steps=4)
    output_ids = executor.output_ids(0, 1)
    executor.drop(0, 1)
    assert engine.cache.num_free_blocks == NUM_BLOCKS
    executor.resume(0, 2, output_ids)
    run(executor, batch([prefill(0, 5, attempt=2)], leaves=[0]))
    assert run(executor, batch(joins=[join(0, 6, attempt=2)]), num_steps=4)[0].token_ids == alone[0]


def test_dropped_while_a_step_uses_it():
    """Its blocks are nobody else's before the step is over."""
    engine = make_engine()
    executor = make_executor(engine)
    run(executor, batch([prefill(0)]))
    executor.start(batch(joins=[join(0)]))
    executor.begin_step()
    executor.drop(0, 1)
    assert engine.cache.num_free_blocks < NUM_BLOCKS
    executor.end_step(executor.step())
    assert engine.cache.num_free_blocks == NUM_BLOCKS


def test_dropped_while_it_is_received():
    """What comes later is written nowhere: its blocks are another's."""
    executor = make_executor()
    into = executor.expect(0, 1, 37, is_real=True)
    executor.drop(0, 1)
    run(executor, batch([prefill(0, attempt=2)]))
    before = np.empty(37 * executor._engine.cache.bytes_of(1), np.uint8)
    executor.cache_of(0, 2, 37).read(0, before)
    into.write(0, np.full(len(before), 7, np.uint8))
    after = np.empty_like(before)
    executor.cache_of(0, 2, 37).read(0, after)
    assert (after == before).all()


def test_ends_with_a_stop_token(alone):
    """Here or, where the first token is one, before it has anything to decode."""
    stop = alone[0][3]
    length = alone[0].index(stop) + 1
    executor = make_executor(stop_ids=[stop])
    answers = run(executor, batch([prefill(0)]))
    if length > 1:
        answers = run(executor, batch(joins=[join(0)]), num_steps=length - 1)
    assert answers[0].token_ids == alone[0][:length] and answers[0].stopped
    destination = make_executor(stop_ids=[alone[1][0]])
    destination.expect(1, 1, 20, is_real=True)
    assert not destination.has_ended(1, 1, 1)
    destination.complete(1, 1, np.array([alone[1][0]], "<i4").tobytes())
    assert destination.has_ended(1, 1, 1)


def test_one_token_answers_end_with_their_prompt():
    engine = make_engine()
    answers = run(make_executor(engine, output_tokens=1), batch([prefill(0), prefill(2)]))
    assert {request: len(answer.token_ids) for request, answer in answers.items()} == {0: 1, 2: 1}
    assert engine.cache.num_free_blocks == NUM_BLOCKS
