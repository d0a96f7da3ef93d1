import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.core.setting import SettingError
from emu.workload.arrivals import Arrivals
from emu.workload.workload import WorkloadError

rates = st.floats(0.5, 200)
durations = st.floats(5, 60)
processes = st.sampled_from([("poisson", 1), ("gamma", 0.3), ("gamma", 1), ("gamma", 4), ("constant", 1)])
seeds = st.integers(0, 2**32 - 1)


def times_s(rate_rps, duration_s, process, seed):
    """Arrival times, empty where no request arrives."""
    try:
        return Arrivals(rate_rps, duration_s, *process).times_s(seed)
    except WorkloadError:
        return np.empty(0)


@settings(deadline=None)
@given(rates, durations, processes, seeds)
def test_times_ascend_within_the_duration(rate_rps, duration_s, process, seed):
    times = times_s(rate_rps, duration_s, process, seed)
    assert (np.diff(times, prepend=0) >= 0).all()
    assert (times < duration_s).all()


@settings(deadline=None)
@given(rates, durations, st.floats(0.1, 10), processes, seeds)
def test_another_rate_is_the_same_pattern_stretched(rate_rps, duration_s, factor, process, seed):
    slow = times_s(rate_rps, duration_s, process, seed)
    fast = times_s(rate_rps * factor, duration_s, process, seed)
    num_shared = min(len(slow), len(fast))
    np.testing.assert_allclose(slow[:num_shared], fast[:num_shared] * factor, rtol=1e-12)


@settings(deadline=None)
@given(rates, durations, st.floats(0, 1), processes, seeds)
def test_a_shorter_run_is_a_prefix(rate_rps, duration_s, share, process, seed):
    cut_s = duration_s * max(share, 0.01)
    whole = times_s(rate_rps, duration_s, process, seed)
    np.testing.assert_array_equal(times_s(rate_rps, cut_s, process, seed), whole[whole < cut_s])


@pytest.mark.parametrize(("arrivals", "cv"), [("poisson", 1), ("gamma", 0.5), ("gamma", 1), ("gamma", 4)])
def test_rate_and_coefficient_of_variation_are_those_asked_for(arrivals, cv):
    gaps = np.diff(Arrivals(100, 2000, arrivals, cv).times_s(seed=7))
    assert len(gaps) / 2000 == pytest.approx(100, rel=4 * cv / np.sqrt(200_000))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


def test_poisson_gaps_are_exponential():
    gaps = np.sort(np.diff(Arrivals(100, 2000, "poisson", 1).times_s(seed=3)))
    empirical = np.arange(1, len(gaps) + 1) / len(gaps)
    distance = np.abs(empirical - -np.expm1(-gaps * 100)).max()
    assert distance < 1.95 / np.sqrt(len(gaps))  # Kolmogorov-Smirnov, 0.1 %


def test_constant_arrivals_are_exact():
    np.testing.assert_array_equal(Arrivals(4, 1.5, "constant", 1).times_s(seed=0), [0, 0.25, 0.5, 0.75, 1.0, 1.25])


def test_seeds_differ_and_one_seed_repeats():
    first, again, other = (Arrivals(50, 10, "poisson", 1).times_s(seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.isin(first, other).any()


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ((0, 30, "poisson", 1), "workload.rate_rps=0: expected a number > 0"),
        ((-8, 30, "poisson", 1), "workload.rate_rps=-8: expected a number > 0"),
        (("fast", 30, "poisson", 1), "workload.rate_rps=fast: expected a number > 0"),
        ((True, 30, "poisson", 1), "workload.rate_rps=True: expected a number > 0"),
        ((float("nan"), 30, "poisson", 1), "workload.rate_rps=nan: expected a number > 0"),
        ((8, 0, "poisson", 1), "workload.duration_s=0: expected a number > 0"),
        ((8, float("inf"), "poisson", 1), "workload.duration_s=inf: expected a number > 0"),
        ((8, 30, "weibull", 1), "workload.arrivals=weibull: expected one of poisson, gamma, constant"),
        ((8, 30, "gamma", 0), "workload.cv=0: expected a number from 0.01 to 100"),
        (
            (8, 30, "poisson", 2),
            "workload.cv=2: expected 1, as workload.arrivals=poisson has a cv of its own",
        ),
        (
            (1e9, 30, "poisson", 1),
            "workload.rate_rps=1000000000.0 for workload.duration_s=30: expected at most 50000000 requests",
        ),
    ],
)
def test_wrong_settings_are_one_clear_line(wrong, text):
    with pytest.raises(SettingError, match=f"^{re.escape(text)}$"):
        Arrivals(*wrong)


def test_no_arrival_is_one_clear_line():
    text = (
        "workload.rate_rps=0.001 for workload.duration_s=1: no request arrives (seed 0); "
        "expected a higher rate or a longer duration"
    )
    with pytest.raises(WorkloadError, match=f"^{re.escape(text)}$"):
        Arrivals(0.001, 1, "poisson", 1).times_s(seed=0)


@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
def test_the_least_rate_for_the_longest_time_is_computed_without_a_warning(arrivals):
    with np.errstate(all="raise"):
        times = times_s(1e-9, 1e9, (arrivals, 1), seed=0)
    assert np.isfinite(times).all()
