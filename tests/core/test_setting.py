"""What a number may be: nothing with which a run would overflow, divide by zero or stand still."""

from math import inf, nan

import pytest

from emu.core import setting
from emu.core.setting import SettingError

NO_NUMBERS = [-1, nan, -inf, True, "1", None]


@pytest.mark.parametrize(
    ("check", "good", "bad", "expected"),
    [
        (setting.positive, [1e-9, 1, 1e18], [5e-324, 1e-308, 1e308, 10**400], "a number from 1e-09 to 1e+18"),
        (setting.positive_or_inf, [1e-9, 1e18, inf], [5e-324, 1e308], "a number from 1e-09 to 1e+18, or inf"),
        (setting.not_negative, [0, 1e-9, 1e18], [5e-324, 1e308, 10**400], "0, or a number from 1e-09 to 1e+18"),
        (setting.seconds, [1e-9, 1e9], [1e-10, 1e10], "a number from 1e-09 to 1e+09"),
        (setting.seconds_or_zero, [0, 1e-9, 1e9], [5e-324, 1e10], "0, or a number from 1e-09 to 1e+09"),
        (setting.period_s, [1e-4, 1e9], [5e-324, 1e-9, 1e10], "a number from 0.0001 to 1e+09"),
        (setting.period_s_or_zero, [0, 1e-4], [5e-324, 1e-9, 1e10], "0, or a number from 0.0001 to 1e+09"),
        (setting.bytes_per_s, [1, 1e18], [1e-308, 0.5, 1e19], "a number from 1 to 1e+18"),
    ],
)
def test_numbers_stay_where_sums_and_quotients_of_them_are_finite(check, good, bad, expected):
    assert [check("a.key", value) for value in good] == good
    for value in bad:
        with pytest.raises(SettingError) as caught:
            check("a.key", value)
        assert str(caught.value) == f"a.key={value}: expected {expected}"
    for value in NO_NUMBERS:
        with pytest.raises(SettingError, match=r"^a\.key=.*: expected a number "):
            check("a.key", value)
