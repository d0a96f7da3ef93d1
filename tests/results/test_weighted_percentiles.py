import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.results.distribution import distribution, weighted_percentiles

numbers = st.floats(-1e9, 1e9) | st.sampled_from([0.0, 0.03, 0.1, 1e-300])
weighted = st.lists(st.tuples(numbers, st.integers(1, 40)), min_size=1, max_size=30)
ranks = st.lists(st.floats(0, 100) | st.sampled_from([0.0, 50.0, 90.0, 99.0, 100.0]), min_size=1, max_size=8)


@given(weighted, ranks)
def test_equal_to_numpy_on_the_repeated_values_to_the_bit(pairs, percentiles):
    values, weights = np.array([value for value, _ in pairs]), np.array([weight for _, weight in pairs])
    repeated = np.percentile(np.repeat(values, weights), percentiles)
    assert weighted_percentiles(values, weights, percentiles) == repeated.tolist()


@given(weighted)
def test_a_weighted_distribution_is_that_of_the_repeated_values(pairs):
    values, weights = np.array([value for value, _ in pairs]), np.array([weight for _, weight in pairs])
    told, repeated = distribution(values, weights), distribution(np.repeat(values, weights))
    scale = np.abs(values).max()
    assert told.pop("mean") == pytest.approx(repeated.pop("mean"), rel=1e-12, abs=1e-12 * scale)
    assert told == repeated


def test_by_hand():
    told = distribution(np.array([4.0, 1.0, np.nan, 2.0, 3.0, 5.0]))
    assert told == {"mean": 3.0, "p50": 3.0, "p90": pytest.approx(4.6), "p99": pytest.approx(4.96), "max": 5.0}


def test_nothing_is_none():
    nothing = {"mean": None, "p50": None, "p90": None, "p99": None, "max": None}
    assert distribution(np.array([])) == nothing
    assert distribution(np.array([np.nan])) == nothing
    assert distribution(np.array([]), np.array([], int)) == nothing
