import re

import pytest

from emu.core.setting import SettingError
from emu.core.timing.constant import ConstantTiming


def test_times_are_what_one_computes_by_hand():
    constant = ConstantTiming(prefill_s_per_token=0.25, decode_step_s=0.5)
    assert constant.prefill_s([2, 4]) == 1.5
    assert constant.decode_s(7, 9999) == 0.5
    assert constant.mixed_s([2, 4], 3, 100) == 2.0
    assert constant.mixed_s([2, 4], 0, 0) == 1.5
    assert constant.decode_boundaries(1.0, 3, 10, 3) == [1.5, 2.0, 2.5]
    assert not constant.extrapolates([10**6], 10**4, 10**9)


def test_it_is_the_same_on_every_machine(timing):
    assert timing("constant", "llama2_70b", "dgx_a100").decode_s(1, 1) == 0.03


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 5e-324, 1e308])
def test_what_is_no_time_of_a_pass_is_refused(value):
    with pytest.raises(SettingError, match=rf"timing\.decode_step_s={re.escape(str(value))}: expected a number from 1e-09 to "):
        ConstantTiming(prefill_s_per_token=1e-4, decode_step_s=value)
