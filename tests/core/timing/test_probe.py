import pytest

from emu.core.timing.probe import trimmed_mean


def test_a_twentieth_at_either_end_does_not_count():
    assert trimmed_mean([500.0, 1.0, *[3.0] * 9, *[4.0] * 9]) == 3.5
    assert trimmed_mean([1.0, 2.0, 6.0]) == 3.0
    assert trimmed_mean([4.0]) == 4.0


def test_there_is_no_mean_of_nothing():
    with pytest.raises(ValueError, match="no values"):
        trimmed_mean([])
