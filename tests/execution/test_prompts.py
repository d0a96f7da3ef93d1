import pickle

import numpy as np
import pytest

from emu.core.setting import SettingError
from emu.execution.prompts import Prompts

LENGTHS = np.array([300, 1, 40, 300], np.int64)


def all_ids(prompts: Prompts) -> list[list[int]]:
    return [prompts.ids(request_id) for request_id in range(len(LENGTHS))]


def test_drawn_prompts_have_the_lengths_asked_for_and_cover_the_vocabulary():
    drawn = all_ids(Prompts(LENGTHS, vocab_size=7, seed=0))
    assert [len(ids) for ids in drawn] == LENGTHS.tolist()
    assert set(drawn[0]) == set(range(7))
    assert all(type(token_id) is int for token_id in drawn[1])


def test_drawn_prompts_depend_on_seed_and_request_alone():
    prompts = Prompts(LENGTHS, vocab_size=32000, seed=5)
    drawn = all_ids(prompts)
    assert [prompts.ids(request_id) for request_id in (3, 0, 2)] == [drawn[3], drawn[0], drawn[2]]
    assert Prompts(np.array([7, 7, 40]), vocab_size=32000, seed=5).ids(2) == drawn[2]
    assert drawn[0] != drawn[3]
    assert Prompts(LENGTHS, vocab_size=32000, seed=6).ids(0) != drawn[0]


def test_drawn_ids_are_uniform():
    ids = Prompts(np.array([80_000]), vocab_size=8, seed=1).ids(0)
    np.testing.assert_allclose(np.bincount(ids, minlength=8), 10_000, atol=400)  # four standard deviations


def given_ids() -> tuple[np.ndarray, ...]:
    return tuple(np.arange(num_tokens, dtype=np.int32) for num_tokens in LENGTHS)


def test_given_prompts_are_as_given():
    assert all_ids(Prompts(LENGTHS, 300, 0, given_ids())) == [list(range(num_tokens)) for num_tokens in LENGTHS]


@pytest.mark.parametrize("given", [None, given_ids()])
def test_a_copy_in_another_process_has_the_same_ids(given):
    prompts = Prompts(LENGTHS, 300, 3, given)
    assert all_ids(pickle.loads(pickle.dumps(prompts))) == all_ids(prompts)


@pytest.mark.parametrize("token_id", [-1, 300])
def test_an_id_outside_the_vocabulary_is_one_clear_line(token_id):
    given = given_ids()
    given[2][0] = token_id
    message = (
        f"^workload: request 2: its prompt has token id {token_id}; expected 0 to 299, for the model has a vocabulary of 300$"
    )
    with pytest.raises(SettingError, match=message):
        Prompts(LENGTHS, 300, 0, given)
