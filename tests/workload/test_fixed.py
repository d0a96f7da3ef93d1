import re

import numpy as np
import pytest

from emu.core.setting import SettingError


def test_every_request_has_the_lengths_asked_for(fixed):
    workload = fixed(prompt_tokens=512, output_tokens=1, rate_rps=2, duration_s=3, arrivals="constant")
    np.testing.assert_array_equal(workload.arrival_s, [0, 0.5, 1, 1.5, 2, 2.5])
    assert set(workload.prompt_tokens) == {512}
    assert set(workload.output_tokens) == {1}


@pytest.mark.parametrize("value", [0, -5, 1.5, "many", 2**31, float("inf"), float("nan")])
@pytest.mark.parametrize("key", ["prompt_tokens", "output_tokens"])
def test_lengths_are_whole_numbers_from_1(fixed, key, value):
    text = f"workload.{key}={value}: expected a whole number from 1 to 2147483647"
    with pytest.raises(SettingError, match=f"^{re.escape(text)}$"):
        fixed(**{key: value})
