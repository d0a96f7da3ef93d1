import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.results.report.scale import Scale, TailScale

RANGES = st.tuples(st.floats(1e-6, 1e9), st.floats(0, 1e9)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def labels(scale, num_labels):
    return [label for _, label in scale.ticks(num_labels) if label]


@settings(deadline=None)
@given(RANGES, st.booleans(), st.integers(3, 8))
def test_a_rounded_axis_holds_its_range_and_its_ticks_fit(ends, log, num_labels):
    low, high = ends
    scale = Scale(low, high, 40.0, 400.0, log).rounded()
    assert scale.low <= low * (1 + 1e-9) and scale.high >= high * (1 - 1e-9)
    ticks = scale.ticks(num_labels)
    assert 1 <= len(labels(scale, num_labels)) <= num_labels
    assert all(40.0 - 1e-6 <= px <= 400.0 + 1e-6 for px, _ in ticks)
    assert len(set(labels(scale, num_labels))) == len(labels(scale, num_labels))


def test_ticks_of_a_linear_axis():
    assert labels(Scale(0, 87.0, 0, 100).rounded(), 6) == ["0", "20", "40", "60", "80", "100"]
    assert labels(Scale(0, 32_000, 0, 100).rounded(), 6) == ["0", "10k", "20k", "30k", "40k"]
    assert labels(Scale(0, 0.07, 0, 100).rounded(), 6) == ["0", "0.02", "0.04", "0.06", "0.08"]
    assert labels(Scale(0, 0.0, 0, 100).rounded(), 6) == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


def test_ticks_of_a_logarithmic_axis():
    assert labels(Scale(30, 900, 0, 100, log=True).rounded(), 7) == ["20", "50", "100", "200", "500", "1,000"]
    assert labels(Scale(30, 90_000, 0, 100, log=True).rounded(), 7) == ["100", "1,000", "10,000", "100,000"]


def test_pixels_follow_the_unit_of_the_axis_and_end_with_it():
    milliseconds = Scale(0, 100, 0, 200, per_unit=1000)
    assert milliseconds.pixels(np.array([0.0, 0.05, 0.1, 0.2])).tolist() == pytest.approx([0, 100, 200, 200])
    logarithmic = Scale(1, 100, 0, 200, log=True)
    assert logarithmic.pixels(np.array([0.0, 1.0, 10.0, 100.0])).tolist() == pytest.approx([0, 0, 100, 200])


def test_nearly_equal_values_still_have_an_axis():
    scale = Scale(28.4, 28.4 * (1 + 1e-14), 0, 100).rounded()
    assert (scale.low, scale.high) == (0.0, 30.0)


def test_a_tail_has_as_much_room_a_decade():
    scale = TailScale(0.0, 100.0)
    assert scale.pixels(np.array([0.0, 0.45, 0.9, 0.99, 0.999, 1.0])).tolist() == pytest.approx([0, 30, 60, 80, 100, 100])
    assert [label for _, label in scale.ticks(6)][-3:] == ["90", "99", "≥ 99.9"]
