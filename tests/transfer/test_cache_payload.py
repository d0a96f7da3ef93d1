"""The bytes of real KV caches between both ends in one process, and pieces that are there when they have been computed."""

import asyncio

import numpy as np
import pytest
import xxhash

from emu.transfer.cache_payload import CachePayload
from emu.transfer.payload import WRONG_CHECKSUM, KVPayload
from emu.transfer.production import LiveProduction
from tests.transfer.test_kv_transfer import DESTINATION, KEY, MESSAGE, SOURCE, Net


class Cache:
    """A KV cache that is an array."""

    def __init__(self, content: np.ndarray) -> None:
        self.content = content

    def read(self, start, out):
        out[:] = self.content[start : start + len(out)]

    def write(self, start, data):
        self.content[start : start + len(data)] = data


def random_cache(num_bytes):
    return Cache(np.random.default_rng(1).integers(256, size=num_bytes, dtype=np.uint8))


def empty_cache(num_bytes):
    return Cache(np.zeros(num_bytes, np.uint8))


async def test_a_real_cache_arrives_with_its_trailer():
    num_bytes = 5 * MESSAGE
    there, here = random_cache(num_bytes), empty_cache(num_bytes)
    async with Net() as net:
        source, destination, _ = net.ends
        sent = CachePayload(num_bytes, 5, there)
        sent.trailer = b"ids"
        source.hold(KEY, sent)
        received = CachePayload(num_bytes, 5, here)
        await destination.pull(SOURCE, KEY, received)
        assert (here.content == there.content).all()
        assert received.trailer == b"ids"
        assert destination.take_counts().verified == 1


async def test_what_comes_from_a_machine_without_cache_is_checked_byte_by_byte():
    num_bytes = 2 * MESSAGE
    for other, right in ((1, True), (2, False)):
        here = empty_cache(num_bytes)
        async with Net() as net:
            source, destination, _ = net.ends
            source.hold(KEY, KVPayload(other, 1, num_bytes))
            pulling = destination.pull(SOURCE, KEY, CachePayload(num_bytes, 1, here, KVPayload(1, 1, num_bytes)))
            if right:
                await pulling
                expected = np.empty(num_bytes, np.uint8)
                KVPayload(1, 1, num_bytes).fill(0, expected)
                assert (here.content == expected).all()
            else:
                with pytest.raises(RuntimeError, match="holds bytes that are not this request's"):
                    await pulling
                assert not here.content.any(), "nothing wrong gets into the cache"


def test_what_was_changed_on_the_way_is_not_written():
    received = random_cache(1000).content
    checksum = xxhash.xxh3_64_intdigest(received)
    here = empty_cache(1000)
    received[500] ^= 1
    assert CachePayload(1000, 1, here).check(0, received, checksum) == WRONG_CHECKSUM
    assert not here.content.any()
    received[500] ^= 1
    assert CachePayload(1000, 1, here).check(0, received, checksum) == ""
    assert (here.content == received).all()


async def test_pieces_leave_when_they_have_been_computed():
    """The third of five has not been: two are sent, and the rest after it."""
    num_bytes, production = 5 * MESSAGE, LiveProduction()
    there, here = random_cache(num_bytes), empty_cache(num_bytes)
    async with Net() as net:
        source, destination, _ = net.ends
        source.hold(KEY, CachePayload(num_bytes, 5, there), production)
        pulling = asyncio.ensure_future(destination.pull(SOURCE, KEY, CachePayload(num_bytes, 5, here), net_time() + 60.0))
        production.advance(2)
        while not (here.content[: 2 * MESSAGE] == there.content[: 2 * MESSAGE]).all():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert not here.content[2 * MESSAGE :].any() and not pulling.done()
        production.advance(5)
        await pulling
        assert (here.content == there.content).all()


async def test_a_source_that_is_called_off_waits_for_no_piece():
    production = LiveProduction()
    async with Net() as net:
        source, destination, _ = net.ends
        source.hold(KEY, CachePayload(MESSAGE, 4, random_cache(MESSAGE)), production)
        pulling = asyncio.ensure_future(destination.pull(SOURCE, KEY, CachePayload(MESSAGE, 4, None), net_time() + 60.0))
        await asyncio.sleep(0.05)
        source.free(KEY)
        pulling.cancel()
        await asyncio.wait({pulling})
        production.advance(4)
        assert DESTINATION not in {peer for peer, _ in source.source._serving}


def net_time():
    return asyncio.get_running_loop().time()
