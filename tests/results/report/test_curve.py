import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.results.report.curve import SHARES, Curve

WEIGHTED = st.lists(st.tuples(st.floats(0, 100), st.integers(1, 5)), min_size=1, max_size=30)


@settings(deadline=None)
@given(WEIGHTED, st.floats(0.001, 1))
def test_a_quantile_is_the_smallest_value_that_covers_the_share(weighted, share):
    values, weights = (np.array(column) for column in zip(*weighted, strict=True))
    repeated = np.sort(np.repeat(values, weights))
    curve = Curve.of(values, weights)
    expected = np.percentile(repeated, 100 * share, method="inverted_cdf")
    assert curve.quantile(share) == expected or abs(share * len(repeated) - round(share * len(repeated))) < 1e-6


def test_few_values_are_drawn_as_their_exact_steps():
    values, shares = Curve.of(np.array([3.0, 1.0, np.nan, 1.0, np.inf, 2.0])).points()
    assert values.tolist() == [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    assert shares.tolist() == [0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1.0]


def test_many_values_are_drawn_by_their_quantiles_to_the_largest():
    drawn = np.random.default_rng(0).exponential(size=100_000)
    values, shares = Curve.of(drawn).points()
    assert len(values) == len(SHARES)
    assert values[-1] == drawn.max() and shares[-1] == 1.0
    assert (np.diff(values) >= 0).all() and (np.diff(shares) >= 0).all()
    assert np.abs(shares - (1 - np.exp(-values))).max() < 0.01


def test_nothing_is_an_empty_curve():
    assert len(Curve.of(np.empty(0))) == 0
    assert len(Curve.of(np.array([np.nan]), np.array([3]))) == 0
