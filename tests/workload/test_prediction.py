"""Guesses of output lengths."""

import numpy as np
import pytest

from emu.core.setting import SettingError
from emu.workload.prediction import NoisyPrediction, NoPrediction
from emu.workload.workload import MAX_NUM_TOKENS
from tests.clusters import make_workload

WORKLOAD = make_workload([(0.1 * i, 10, 1 + i % 50) for i in range(4000)])


def test_none():
    assert NoPrediction().apply(WORKLOAD, seed=1).predicted_output_tokens is None
    assert next(WORKLOAD.rows()) == (0.0, 10, 0)


def test_without_error_it_is_the_truth():
    workload = NoisyPrediction(log_error=0).apply(WORKLOAD, seed=1)
    np.testing.assert_array_equal(workload.predicted_output_tokens, WORKLOAD.output_tokens)
    assert next(workload.rows()) == (0.0, 10, 1)


def test_the_error_is_lognormal_and_seeded():
    long = WORKLOAD.output_tokens > 20
    first, again, other = (NoisyPrediction(log_error=0.5).apply(WORKLOAD, seed).predicted_output_tokens for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first.min() >= 1
    errors = np.log(first[long] / WORKLOAD.output_tokens[long])
    assert abs(errors.mean()) < 0.05
    assert errors.std() == pytest.approx(0.5, rel=0.05)


def test_wrong_settings():
    with pytest.raises(SettingError, match=r"prediction\.log_error=-1: expected a number from 0 to 100"):
        NoisyPrediction(log_error=-1)


def test_the_largest_error_there_may_be_gives_lengths_without_a_warning():
    with np.errstate(all="raise"):
        predicted = NoisyPrediction(log_error=100).apply(WORKLOAD, seed=1).predicted_output_tokens
    assert predicted.min() >= 1 and predicted.max() <= MAX_NUM_TOKENS
