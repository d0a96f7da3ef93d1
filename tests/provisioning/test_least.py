"""The search for the least size against the full grid, on borders that are made up and on clusters that are run."""

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.provisioning.design import Design, Size
from emu.provisioning.least import every_size, least
from emu.provisioning.probe import Probe, probe
from emu.provisioning.question import COST, MACHINES, POWER, Caps, amount

CODE = ("workload=splitwise_code", "workload.duration_s=6", "model=bloom_176b")
RATE_RPS = 10.0


@cache
def design(name="splitwise_ha", further=CODE) -> Design:
    return Design.of(name, further, RATE_RPS)


@cache
def any_probe() -> Probe:
    return probe(design().overrides(Size(2, 1)), RATE_RPS)


def bordered(border, room=lambda size: 0.5):
    """A run whose size carries the rate where `border` says so, and the sizes that were run."""
    sizes = []

    def run(size: Size, rate_rps: float) -> Probe:
        sizes.append(size)
        margin = room(size) if border(size) else -0.5
        margins = dict.fromkeys(any_probe().margins, margin)
        return replace(any_probe(), rate_rps=rate_rps, met=border(size), margins=margins)

    return run, sizes


@settings(deadline=None, max_examples=40)
@given(
    least_prompt=st.integers(0, 20),
    least_token=st.integers(0, 6),
    work=st.floats(0.1, 60),
    objective=st.sampled_from([COST, POWER, MACHINES]),
    name=st.sampled_from(["splitwise_ha", "splitwise_hh"]),
)
def test_on_a_monotone_and_convex_border_it_finds_what_the_full_grid_finds(least_prompt, least_token, work, objective, name):
    def border(size: Size) -> bool:
        over = size.num_prompt - least_prompt, size.num_token - least_token
        return min(over) > 0 and over[0] * over[1] >= work

    caps = Caps(max_machines=45)
    found = least(objective, design(name), RATE_RPS, caps, bordered(border, lambda size: 1 / size.num_token)[0])
    expected = every_size(objective, design(name), RATE_RPS, caps, bordered(border, lambda size: 1 / size.num_token)[0])
    assert (found is None) == (expected is None)
    if found is not None:
        assert found.probe.met
        assert amount(objective, design(name), found.size) == amount(objective, design(name), expected.size)


def test_of_equals_it_takes_the_one_with_most_room():
    run, _ = bordered(lambda size: sum(size) >= 9, room=lambda size: size.num_token * size.num_prompt)
    assert least(COST, design("splitwise_hh"), RATE_RPS, Caps(), run).size in (Size(5, 4), Size(4, 5))


def test_few_sizes_are_run_and_none_that_is_far_too_small():
    run, sizes = bordered(lambda size: size.num_prompt >= 27 and size.num_token >= 3)
    assert least(COST, design("splitwise_hh"), 70, Caps(), run).size == Size(27, 3)
    assert len(set(sizes)) < 15  # of 19,900 within the caps
    assert min(size.num_prompt for size in sizes) > 20


def test_where_nothing_carries_the_rate_only_the_largest_sizes_are_run():
    run, sizes = bordered(lambda size: False)
    assert least(COST, design(), RATE_RPS, Caps(max_machines=20), run) is None
    assert {size for size in sizes if sum(size) == 20} == {Size(20 - number, number) for number in range(1, 20)}
    assert len(sizes) < 25  # the others on the way from the estimate


@pytest.mark.parametrize("max_machines", [4, 7, 12])
@pytest.mark.parametrize("least_size", [Size(1, 1), Size(3, 1), Size(2, 2), Size(1, 3), Size(5, 6), Size(9, 9)])
@pytest.mark.parametrize("objective", [COST, POWER, MACHINES])
def test_no_size_beyond_the_caps_is_run(objective, least_size, max_machines):
    run, sizes = bordered(lambda size: size.covers(least_size))
    caps = Caps(max_machines=max_machines)
    found = least(objective, design(), RATE_RPS, caps, run)
    assert (found is not None) == caps.allow(design(), least_size)
    assert all(caps.allow(design(), size) for size in sizes)


def test_a_design_without_pools():
    run, sizes = bordered(lambda size: size.num_prompt >= 37)
    assert least(COST, design("baseline_a100"), RATE_RPS, Caps(), run).size == Size(37, 0)
    assert least(COST, design("baseline_a100"), RATE_RPS, Caps(max_machines=36), run) is None
    assert {size.num_token for size in sizes} == {0}


@pytest.mark.parametrize("objective", [COST, POWER])
@pytest.mark.parametrize("name", ["splitwise_ha", "splitwise_hh", "baseline_h100"])
def test_on_small_clusters_it_finds_what_the_full_grid_finds(name, objective):
    caps, of = Caps(max_machines=8), design(name)
    memo = {}

    def run(size: Size, rate_rps: float) -> Probe:
        if size not in memo:
            memo[size] = probe(of.overrides(size), rate_rps)
        return memo[size]

    found = least(objective, of, RATE_RPS, caps, run)
    num_runs = len(memo)
    expected = every_size(objective, of, RATE_RPS, caps, run)
    assert found == expected
    assert sum(one.met for one in memo.values()) > 1
    assert num_runs < len(memo)
