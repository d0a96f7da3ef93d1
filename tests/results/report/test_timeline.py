import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.results.report.timeline import Timeline

INTERVALS = st.lists(st.tuples(st.floats(0, 12), st.floats(0, 5), st.integers(1, 9)), max_size=20)


def open_share(start_s, end_s, low_s, high_s):
    """The share of low..high during which an interval is open."""
    return max(0.0, min(end_s, high_s) - max(start_s, low_s)) / (high_s - low_s)


@settings(deadline=None)
@given(INTERVALS, st.integers(1, 7))
def test_occupancy_is_the_time_average_of_what_is_open(intervals, num_bins):
    timeline = Timeline(10.0, num_bins)
    start_s, length_s, amounts = (
        (np.array(column, float) for column in zip(*intervals, strict=True)) if intervals else [np.empty(0)] * 3
    )
    occupancy = timeline.occupancy(start_s, start_s + length_s, amounts)
    edges = timeline.edges_s
    for index in range(num_bins):
        rows = zip(start_s, start_s + length_s, amounts, strict=True)
        expected = sum(n * open_share(start, end, edges[index], edges[index + 1]) for start, end, n in rows)
        assert abs(occupancy[index] - expected) < 1e-6


def test_an_interval_without_a_start_never_was_and_one_without_an_end_lasts():
    timeline = Timeline(4.0, 4)
    occupancy = timeline.occupancy(np.array([np.nan, 1.5]), np.array([2.0, np.nan]))
    assert occupancy.tolist() == [0.0, 0.5, 1.0, 1.0]


def test_sums_count_each_time_once_and_what_never_happened_not_at_all():
    timeline = Timeline(4.0, 4)
    assert timeline.sums(np.array([0.0, 0.9, 1.0, 4.0, np.nan])).tolist() == [2.0, 1.0, 0.0, 1.0]
    assert timeline.sums(np.array([0.5, 3.5]), np.array([10, 20])).tolist() == [10.0, 0.0, 0.0, 20.0]


def test_highest_is_unknown_where_nothing_was():
    highest = Timeline(3.0, 3).highest(np.array([0.1, 0.2, 2.5]), np.array([5, 3, 0]))
    assert highest[[0, 2]].tolist() == [5.0, 0.0] and np.isnan(highest[1])


def test_round_bins_have_a_round_width_and_cover_the_time():
    timeline = Timeline.of_round_bins(61.0, 80)
    assert timeline.width_s == 1.0 and timeline.num_bins == 61
    assert Timeline.of_round_bins(0.001, 80).num_bins == 50
