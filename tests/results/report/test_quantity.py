import math

import pytest

from emu.results.report.quantity import MILLISECONDS, SECONDS, count, duration, run_time_unit, share, significant, size, unit_of


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.00 ms"), (0.01234, "12.34 ms"), (0.123, "123.0 ms"), (1.5, "1.50 s"), (12_345.6, "12,346 s"), (None, "–")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_what_is_not_known_or_not_finite():
    assert [SECONDS.text(value) for value in (None, math.nan, math.inf)] == ["–", "–", "∞"]
    assert [count(None), size(None), share(None)] == ["–"] * 3


def test_units_follow_the_typical_value():
    assert unit_of(0.2) is MILLISECONDS and unit_of(1.0) is SECONDS and unit_of(None) is MILLISECONDS
    assert [run_time_unit(span_s).name for span_s in (120, 3600, 86_400)] == ["s", "min", "h"]


def test_counts_sizes_and_shares():
    assert [count(12_345), count(2.5), count(1234.56)] == ["12,345", "2.50", "1,235"]
    assert [size(999), size(1.25e9), size(213e9)] == ["999 B", "1.2 GB", "213 GB"]
    assert [share(0.5), share(0.0123), share(1.0)] == ["50 %", "1.2 %", "100 %"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0"),
        (0.012345, "0.0123"),
        (9.996, "10"),
        (19.949, "19.9"),
        (38.0, "38"),
        (118.44, "118"),
        (100.0, "100"),
        (1234.5, "1,230"),
        (999.9, "1,000"),
        (-0.5, "-0.5"),
        (float("inf"), "∞"),
    ],
)
def test_three_significant_digits(value, text):
    assert significant(value) == text
