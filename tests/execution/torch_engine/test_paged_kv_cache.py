"""Blocks taken and given back, and a sequence's bytes in and out of them."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from emu.execution.torch_engine.errors import EngineError  # noqa: E402
from emu.execution.torch_engine.kv_cache import PagedKVCache  # noqa: E402

NUM_LAYERS, NUM_BLOCKS, BLOCK_TOKENS, NUM_KV_HEADS, HEAD_DIM = 2, 9, 4, 2, 3


def make_cache(dtype=torch.float32):
    return PagedKVCache(NUM_LAYERS, NUM_BLOCKS, BLOCK_TOKENS, NUM_KV_HEADS, HEAD_DIM, dtype, torch.device("cpu"))


def whole(cache, blocks, num_tokens):
    """The sequence's bytes, one token at a time: what `read` is to give."""
    rows = [
        layer[part, blocks[token // BLOCK_TOKENS], token % BLOCK_TOKENS].view(torch.uint8).flatten()
        for layer in cache.layers
        for part in (0, 1)
        for token in range(num_tokens)
    ]
    return torch.cat(rows).numpy()


@st.composite
def places(draw):
    """Blocks in any order, tokens in them, and a range of the tokens' bytes."""
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16]))
    num_tokens = draw(st.integers(1, 4 * BLOCK_TOKENS))
    least = -(-num_tokens // BLOCK_TOKENS)
    blocks = draw(st.permutations(range(NUM_BLOCKS)))[: draw(st.integers(least, least + 2))]
    num_bytes = make_cache(dtype).bytes_of(num_tokens)
    start, end = sorted((draw(st.integers(0, num_bytes)), draw(st.integers(0, num_bytes))))
    return dtype, blocks, num_tokens, start, end


@given(places())
@settings(max_examples=150, deadline=None)
def test_any_range_of_bytes_is_read_where_it_is_and_written_there_alone(place):
    dtype, blocks, num_tokens, start, end = place
    cache = make_cache(dtype)
    random = np.random.default_rng(1)
    for layer in cache.layers:
        layer.view(torch.uint8).copy_(torch.from_numpy(random.integers(0, 256, layer.view(torch.uint8).shape, dtype=np.uint8)))
    before = [layer.view(torch.uint8).clone() for layer in cache.layers]
    expected = whole(cache, blocks, num_tokens)
    assert len(expected) == cache.bytes_of(num_tokens)
    found = np.zeros(end - start, np.uint8)
    cache.read(blocks, num_tokens, start, found)
    assert (found == expected[start:end]).all()

    data = random.integers(0, 256, end - start, dtype=np.uint8)
    cache.write(blocks, num_tokens, start, data)
    expected[start:end] = data
    assert (whole(cache, blocks, num_tokens) == expected).all()
    # Undone, the whole cache is as before: no byte outside the range was touched.
    cache.write(blocks, num_tokens, start, found)
    assert all(torch.equal(layer.view(torch.uint8), old) for layer, old in zip(cache.layers, before, strict=True))


@pytest.mark.parametrize(("num_tokens", "start", "size"), [(4, -1, 1), (4, 0, 385), (4, 384, 1), (5, 0, 1)])
def test_bytes_outside_the_sequence_are_refused(num_tokens, start, size):
    cache = make_cache()
    assert cache.bytes_of(4) == 384
    for access in (cache.read, cache.write):
        with pytest.raises(ValueError, match="tokens in 1 KV blocks"):
            access([3], num_tokens, start, np.zeros(size, np.uint8))


def test_blocks_are_taken_once_and_come_back():
    cache = make_cache()
    first = cache.allocate(4)
    second = cache.allocate(5)
    assert sorted(first + second) == list(range(NUM_BLOCKS))
    with pytest.raises(EngineError, match=r"^no room for 1 KV blocks: 0 of 9 are free after 0\.01 s$"):
        cache.allocate(1, timeout_s=0.01)
    cache.release(first)
    with pytest.raises(EngineError, match=f"^KV block {first[0]} is released twice$"):
        cache.release(first[:1])
    assert sorted(cache.allocate(4)) == sorted(first)


def test_who_waits_for_blocks_gets_those_that_another_thread_releases():
    cache = make_cache()
    held = cache.allocate(NUM_BLOCKS)
    taken = []
    waiting = threading.Thread(target=lambda: taken.extend(cache.allocate(3, timeout_s=30)))
    waiting.start()
    cache.release(held[:2])
    cache.release(held[2:4])
    waiting.join()
    assert len(set(taken)) == 3 and set(taken) <= set(held[:4])
    assert cache.num_free_blocks == 1


def test_more_blocks_than_there_are_is_refused_at_once():
    with pytest.raises(EngineError, match=r"^no room for 10 KV blocks: 9 of 9 are free"):
        make_cache().allocate(10, timeout_s=1000)
