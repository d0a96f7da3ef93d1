"""KV block bookkeeping against an explicit count of every decode's blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.core.kv_cache import KVCache


def test_a_token_more_than_a_block_takes_two():
    kv = KVCache(100, block_tokens=16)
    assert [kv.blocks_for(num_tokens) for num_tokens in (0, 1, 16, 17, 32, 33)] == [0, 1, 1, 2, 2, 3]


def test_what_is_reserved_and_released_adds_up():
    kv = KVCache(10)
    kv.reserve(7)
    assert (kv.num_free, kv.num_used) == (3, 7)
    with pytest.raises(RuntimeError, match=r"^4 KV blocks taken where 3 of 10 are free$"):
        kv.reserve(4)
    kv.release(7)
    with pytest.raises(RuntimeError, match=r"^11 KV blocks free of 10: some were given back twice$"):
        kv.release(1)


def test_an_admission_leaves_the_watermark_free():
    kv = KVCache(100, watermark=0.05)
    assert kv.can_admit(100)  # alone in an empty cache it may take all
    assert not kv.can_admit(101)
    kv.reserve(1)
    assert kv.can_admit(94)
    assert not kv.can_admit(95)


def test_an_empty_batch_takes_no_steps():
    assert KVCache(10).max_num_steps() == 0


class CountedDecodes:
    """The rule itself: at the start of a step each decode holds the blocks of its cached tokens and one more."""

    def __init__(self, cached, block_tokens):
        self.cached, self.block_tokens = list(cached), block_tokens

    def num_blocks(self):
        return sum(-(-(num_cached + 1) // self.block_tokens) for num_cached in self.cached)

    def step(self):
        self.cached = [num_cached + 1 for num_cached in self.cached]


@st.composite
def growing(draw):
    """A cache that decodes have joined, at whatever step of its life, and the same decodes counted one by one."""
    block_tokens = draw(st.integers(1, 6))
    counted = CountedDecodes(draw(st.lists(st.integers(1, 30), min_size=1, max_size=8)), block_tokens)
    num_spare = draw(st.integers(0, 40))
    kv = KVCache(counted.num_blocks() + num_spare, block_tokens, watermark=0)
    kv.step = draw(st.integers(0, 20))
    kv.reserve(counted.num_blocks())
    for num_cached in counted.cached:
        kv.join(num_cached)
    return kv, counted


@given(growing())
def test_steps_take_the_blocks_that_each_decode_grows_into(case):
    kv, counted = case
    max_num_steps, num_steps = kv.max_num_steps(), 0
    while True:
        counted.step()
        num_steps += 1
        kv.end_run(1)
        if kv.shortage > 0:
            assert not kv.grow()
            break
        assert kv.grow()
        assert kv.num_used == counted.num_blocks()
    assert counted.num_blocks() > kv.num_blocks  # it really was the last one
    # The bound may be rounded down to whole blocks, but never over and never to a standstill.
    assert max_num_steps <= num_steps < max_num_steps + kv.block_tokens
    if max_num_steps < kv.block_tokens:
        assert max_num_steps == num_steps


@given(growing(), st.data())
def test_many_steps_at_once_are_as_many_single_ones(case, data):
    kv, counted = case
    num_steps = data.draw(st.integers(0, kv.max_num_steps() - 1))
    kv.advance(num_steps)
    for _ in range(num_steps):
        counted.step()
    assert kv.num_used == counted.num_blocks()
    leaver = counted.cached.pop()
    kv.leave(leaver)
    kv.release(kv.blocks_for(leaver + 1))
    assert kv.num_used == counted.num_blocks()
    counted.step()
    kv.end_run(1)
    assert kv.num_blocks + kv.shortage == counted.num_blocks()
