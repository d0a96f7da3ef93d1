"""The next token: the likeliest, or a draw that is the same in any batch."""

import itertools

import pytest

torch = pytest.importorskip("torch")

from emu.core.seeding import request_seed  # noqa: E402
from emu.execution.torch_engine.sampling import GREEDY, Sampling, next_tokens, uniform  # noqa: E402

PROBABILITIES = torch.tensor([0.5, 0.2, 0.05, 0.25])
LOGITS = PROBABILITIES.log()[None]


def draws(sampling, number=2000):
    return [next_tokens(LOGITS, [sampling], [position])[0] for position in range(number)]


def test_greedy_takes_the_likeliest():
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(1))
    assert next_tokens(logits, [GREEDY] * 5, [1] * 5) == logits.argmax(-1).tolist()


def test_draws_follow_the_probabilities():
    found = draws(Sampling(1.0, 1.0, 3))
    shares = torch.bincount(torch.tensor(found), minlength=4) / len(found)
    assert torch.allclose(shares, PROBABILITIES, atol=0.04)


def test_a_high_temperature_levels_and_a_low_one_sharpens():
    assert draws(Sampling(0.05, 1.0, 3)).count(0) == 2000
    assert 450 < draws(Sampling(100.0, 1.0, 3)).count(2) < 550


@pytest.mark.parametrize(("top_p", "tokens"), [(0.4, {0}), (0.5, {0}), (0.51, {0, 3}), (0.75, {0, 3}), (0.9, {0, 1, 3})])
def test_top_p_keeps_the_likeliest_that_reach_it(top_p, tokens):
    assert set(draws(Sampling(1.0, top_p, 4), 300)) == tokens


def test_a_draw_depends_on_seed_and_position_but_not_on_the_batch():
    generator = torch.Generator().manual_seed(2)
    logits = 2 * torch.randn(64, 100, generator=generator)
    samplings = [Sampling(1.0, 0.9, seed) if seed % 3 else GREEDY for seed in range(64)]
    positions = list(range(100, 164))
    together = next_tokens(logits, samplings, positions)
    alone = [next_tokens(logits[row : row + 1], [samplings[row]], [positions[row]])[0] for row in range(64)]
    assert together == alone
    assert next_tokens(logits, samplings, [0] * 64) != together
    assert len({uniform(seed, position) for seed in range(40) for position in range(40)}) == 1600


def test_no_request_draws_what_another_one_does_with_another_seed():
    draws_of = {pair: uniform(request_seed(*pair), 7) for pair in itertools.product(range(8), range(8))}
    assert len(set(draws_of.values())) == 64
    assert uniform(request_seed(2**31 - 1, 2**31 - 1), 7) < 1  # the largest of both are a key still
