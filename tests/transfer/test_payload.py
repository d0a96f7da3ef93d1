"""Bytes that tell whose they are and where they belong."""

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from emu.build import compose, plain
from emu.core.specs import ModelSpec
from emu.transfer.payload import TILE_WORDS, KVLayout, KVPayload
from emu.transfer.production import TimedProduction

TILE_BYTES = TILE_WORDS * 8


def filled(payload: KVPayload, start: int, stop: int) -> np.ndarray:
    out = np.empty(stop - start, dtype=np.uint8)
    assert payload.fill(start, out) == xxhash.xxh3_64_intdigest(out)
    return out


@given(st.integers(0, 2 * TILE_WORDS), st.integers(0, 2 * TILE_BYTES), st.integers(1, 1 << 31), st.integers(1, 9))
def test_any_part_is_right_where_it_belongs_and_nowhere_else(first_word, num_bytes, request_id, attempt):
    start = first_word * 8
    payload = KVPayload(request_id, attempt, start + num_bytes)
    part = filled(payload, start, start + num_bytes)
    assert payload.verify(start, part) == (None, xxhash.xxh3_64_intdigest(part))
    if num_bytes >= 8:
        for other, place in ((payload, start + 8), (KVPayload(request_id + 1, attempt, 1 << 20), start)):
            assert other.verify(place, part)[0] == place
        assert KVPayload(request_id, attempt + 1, 1 << 20).verify(start, part)[0] == start


@given(st.integers(1, 2 * TILE_BYTES + 9), st.data())
def test_a_changed_bit_is_found(num_bytes, data):
    payload = KVPayload(3, 1, num_bytes)
    part = filled(payload, 0, num_bytes)
    changed = data.draw(st.integers(0, num_bytes - 1))
    part[changed] ^= 1 << data.draw(st.integers(0, 7))
    assert payload.verify(0, part)[0] == changed // 8 * 8


def test_parts_make_up_the_whole():
    payload = KVPayload(1, 1, 1000)
    parts = [filled(payload, start, min(1000, start + 296)) for start in range(0, 1000, 296)]
    assert np.concatenate(parts).tobytes() == filled(payload, 0, 1000).tobytes()


def test_no_two_words_are_equal():
    words = np.concatenate([filled(KVPayload(request, attempt, 8000), 0, 8000) for request in range(20) for attempt in (1, 2)])
    assert len(np.unique(words.view(np.uint64))) == len(words) // 8


def test_what_is_wrong_is_named_by_its_place():
    """Llama2-70B: 80 layers x (K, V) x 4 blocks of 16 tokens x 8 heads x 128 x 2 bytes."""
    model = plain(compose([]))["model"]
    del model["_target_"]
    layout = KVLayout(ModelSpec(**model), block_tokens=16, scale=1.0)
    num_bytes, block_bytes = 64 * 327_680, 16 * 8 * 128 * 2
    payload = KVPayload(1, 1, num_bytes, 80, layout)
    place = (5 * 2 + 1) * 4 * block_bytes + 2 * block_bytes  # layer 5, V, block 2
    received = filled(payload, place, place + 2 * block_bytes)
    received[:block_bytes] = filled(payload, 0, block_bytes)
    assert payload.verify(place, received)[0] == place
    assert payload.explain(place, received, place) == "layer 5, V, block 2 holds what belongs to layer 0, K, block 0"
    received[:8] = 7
    assert payload.explain(place, received, place) == "layer 5, V, block 2 holds bytes that are not this request's"


@pytest.mark.parametrize(("num_bytes", "num_pieces"), [(80 * 4096, 80), (1000, 80), (5, 3), (327_680 * 17, 10)])
def test_pieces_are_equal_but_for_whole_words(num_bytes, num_pieces):
    payload = KVPayload(1, 1, num_bytes, num_pieces)
    sizes = np.diff([0, *payload.ends])
    assert (len(sizes), sizes.sum()) == (num_pieces, num_bytes)
    assert (np.array(payload.ends[:-1]) % 8 == 0).all()
    assert np.abs(sizes[:-1] - num_bytes / num_pieces).max(initial=0) < 8
    assert [payload.piece_at(payload.end_of_pieces(piece + 1)) for piece in range(num_pieces) if sizes[piece]] == [
        piece for piece in range(num_pieces) if sizes[piece]
    ]


def test_pieces_are_there_at_the_end_of_their_part():
    production = TimedProduction(10.0, 14.0)
    assert [production.due_s(piece, 4) for piece in range(4)] == [11.0, 12.0, 13.0, 14.0]
    assert [production.num_produced(now_s, 4) for now_s in (9.0, 10.9, 11.0, 12.5, 13.99, 14.0, 20.0)] == [0, 0, 1, 2, 3, 4, 4]
    assert TimedProduction().num_produced(0.0, 4) == 4
