"""The search for the highest rate under caps against the full grid."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.core.setting import SettingError
from emu.provisioning.design import Size
from emu.provisioning.most import Rates, every_size, most
from emu.provisioning.probe import Probe, probe
from emu.provisioning.question import Caps
from tests.provisioning.test_least import any_probe, design


def limited(limit_of):
    """A run that is met up to the rate that `limit_of` says of a size, and what was run."""
    runs = []

    def run(size: Size, rate_rps: float) -> Probe:
        runs.append((size, rate_rps))
        return replace(any_probe(), rate_rps=rate_rps, met=rate_rps <= limit_of(size))

    return run, runs


@settings(deadline=None, max_examples=40)
@given(
    per_prompt=st.floats(0.5, 5),
    per_token=st.floats(0.5, 30),
    help_of_token=st.floats(0, 0.3),
    max_dollars=st.floats(120, 700),
)
def test_where_the_goodput_has_one_peak_it_is_found_within_the_tolerance(per_prompt, per_token, help_of_token, max_dollars):
    def limit(size: Size) -> float:
        return min(per_prompt * (size.num_prompt + help_of_token * size.num_token), per_token * size.num_token)

    rates, caps = Rates(0.1, 500, 0.02), Caps(max_dollars_per_hour=max_dollars)
    run, runs = limited(limit)
    found = most(design(), rates, caps, run)
    full, full_runs = limited(limit)
    expected = every_size(design(), rates, caps, full)
    assert found.probe.met and all(caps.allow(design(), size) for size, _ in runs)
    assert found.probe.rate_rps * 1.02**3 >= expected.probe.rate_rps  # bisection, bettering, and bisection in the full grid
    assert len(runs) <= len(full_runs)


def test_a_size_that_cannot_better_the_best_costs_two_runs():
    run, runs = limited(lambda size: min(size.num_prompt, 5 * size.num_token))
    most(design("splitwise_hh"), Rates(0.1, 500, 0.01), Caps(max_machines=24), run)
    sizes = [size for size, _ in runs]
    assert sizes.count(Size(19, 5)) == 2  # nor with a prompt machine more, which the caps forbid: at 19/20 of the rate
    assert max(size.num_token for size in sizes) == 5


def test_no_size_may_carry_the_lowest_rate():
    run, _ = limited(lambda size: 0)
    assert most(design(), Rates(1, 10, 0.01), Caps(max_machines=10), run) is None
    assert most(design("baseline_a100"), Rates(1, 10, 0.01), Caps(max_machines=10), run) is None


def test_on_small_clusters_it_finds_what_the_full_grid_finds():
    caps, rates, of, memo = Caps(max_machines=4), Rates(2, 60, 0.1), design("splitwise_hh"), {}

    def run(size: Size, rate_rps: float) -> Probe:
        if (size, rate_rps) not in memo:
            memo[size, rate_rps] = probe(of.overrides(size), rate_rps)
        return memo[size, rate_rps]

    found = most(of, rates, caps, run)
    num_runs = len(memo)
    expected = every_size(of, rates, caps, run)
    assert found.size == expected.size
    assert found.probe.rate_rps * 1.1**3 >= expected.probe.rate_rps
    assert num_runs < len(memo)


def test_rates_that_cannot_be():
    with pytest.raises(SettingError, match=r"^--low-rps=20: expected at most --high-rps=10$"):
        Rates(20, 10, 0.01)
    with pytest.raises(SettingError, match=r"^--tolerance=2: expected a number from 0.0001 to 1$"):
        Rates(1, 10, 2)
