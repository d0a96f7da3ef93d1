from itertools import combinations

import numpy as np
import pytest

from emu.execution.calibration.least_squares import non_negative_least_squares


def brute_force(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The best of the least-squares solutions over all subsets of columns that are not negative."""
    num_columns = matrix.shape[1]
    best, best_error = np.zeros(num_columns), float(np.linalg.norm(target))
    for size in range(1, num_columns + 1):
        for columns in map(list, combinations(range(num_columns), size)):
            x = np.zeros(num_columns)
            x[columns] = np.linalg.lstsq(matrix[:, columns], target, rcond=None)[0]
            error = float(np.linalg.norm(matrix @ x - target))
            if x.min() >= 0 and error < best_error - 1e-12:
                best, best_error = x, error
    return best


@pytest.mark.parametrize("seed", range(30))
def test_it_finds_what_trying_all_subsets_finds(seed):
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((12, 6)) * 10.0 ** rng.integers(-6, 6, 6)
    target = rng.standard_normal(12)
    expected = brute_force(matrix, target)
    found = non_negative_least_squares(matrix, target)
    assert found.min() >= 0
    assert np.linalg.norm(matrix @ found - target) == pytest.approx(np.linalg.norm(matrix @ expected - target), abs=1e-8)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-12)


def test_what_was_put_in_comes_out_and_a_column_of_zeros_costs_nothing():
    rng = np.random.default_rng(0)
    matrix = np.abs(rng.standard_normal((20, 4)))
    matrix[:, 2] = 0.0
    assert non_negative_least_squares(matrix, matrix @ [1e-7, 0.0, 5.0, 3.0]) == pytest.approx([1e-7, 0.0, 0.0, 3.0], abs=1e-9)


def test_nothing_is_worth_anything_where_all_would_be_negative():
    assert non_negative_least_squares(np.ones((3, 2)), -np.ones(3)).tolist() == [0.0, 0.0]
