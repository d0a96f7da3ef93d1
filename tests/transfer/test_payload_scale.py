import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.transfer.payload_scale import LARGE_BYTES, MAX_SHARE, SMALL_BYTES, TransferProbe, choose_dilation, choose_payload_scale
from emu.transfer.settings import TransferError
from tests.transfer.settings import settings_named

# 4 ms for 64 KiB, 68 ms for 64 MiB: 1 ms a MiB beyond the first 64 KiB.
PROBE = TransferProbe(small_s=0.004, large_s=0.004 + 0.001 * (LARGE_BYTES - SMALL_BYTES) / 2**20)


def test_the_probe_is_a_line_through_both_sizes():
    assert PROBE.pull_s(SMALL_BYTES) == 0.004
    assert PROBE.pull_s(LARGE_BYTES) == pytest.approx(PROBE.large_s)
    assert PROBE.pull_s(SMALL_BYTES + 2**20) == pytest.approx(0.005)
    assert PROBE.bytes_per_s == LARGE_BYTES / PROBE.large_s


@pytest.mark.parametrize(
    ("transfers_per_s", "mean_mib", "modelled_s", "scale"),
    [
        (1, 64, 1, 1.0),  # 68 ms a second
        (8, 400, 1, 1 / 16),  # 25 MiB: 8 x 29 ms = 0.232 s a second; twice as much would take 0.432
        (8, 400, 0.01, 1 / 128),  # 3.125 MiB take 7.1 ms; twice as much 10.2 ms, longer than the model's 10
        (10, 16, 1, 1.0),  # 10 x 20 ms = 0.1994 s
        (20, 16, 1, 1 / 2),  # 8 MiB: 20 x 12 ms = 0.239 s
        (100, 400, 1, 1 / 8192),  # 100 x 4 ms is too much in any case: down to 64 KiB or less
        (1, 400, 0.003, 1 / 8192),  # and so is 4 ms where the model takes 3
    ],
)
def test_the_largest_power_of_two_that_disturbs_nothing(transfers_per_s, mean_mib, modelled_s, scale):
    assert choose_payload_scale(PROBE, transfers_per_s, mean_mib * 2**20, modelled_s) == scale


@given(st.floats(1e-4, 0.05), st.floats(0, 2), st.floats(0.01, 1000), st.floats(1, 1e12), st.floats(0, 1))
def test_it_is_a_power_of_two_that_fits_unless_none_does(small_s, more_s, transfers_per_s, mean_bytes, modelled_s):
    probe = TransferProbe(small_s, small_s + more_s)
    scale = choose_payload_scale(probe, transfers_per_s, mean_bytes, modelled_s)
    assert 0 < scale <= 1
    assert math.log2(scale).is_integer()
    pull_s = probe.pull_s(scale * mean_bytes)
    fits = transfers_per_s * pull_s <= MAX_SHARE and pull_s <= modelled_s
    assert fits or scale * mean_bytes <= SMALL_BYTES


@pytest.mark.parametrize(
    ("transfers_per_s", "mean_mib", "modelled_s", "dilation"),
    [
        (1, 64, 1, 1.0),  # 68 ms in a second
        (8, 64, 1, 2.2),  # 8 x 67.9 ms = 0.543 s a second: a quarter of 2.17
        (1, 400, 0.1, 4.1),  # 404 ms in the model's 100
        (1, 1024, 0.01, 110.0),  # 1,028 ms in 10
    ],
)
def test_the_least_dilation_at_which_all_bytes_are_in_time(transfers_per_s, mean_mib, modelled_s, dilation):
    num_bytes = np.full(100, mean_mib * 2.0**20)
    assert choose_dilation(PROBE, transfers_per_s, num_bytes, np.full(100, modelled_s)) == dilation


def test_one_payload_of_a_hundred_may_be_late():
    num_bytes = np.array([2.0**20] * 199 + [2.0**30])
    assert choose_dilation(PROBE, 0.1, num_bytes, np.full(200, 0.01)) == 1.0


@pytest.mark.parametrize("scale", [-0.1, 1.1, "much", True, float("nan")])
def test_a_scale_that_is_none(scale):
    with pytest.raises(TransferError, match=r"transfer.payload_scale=.*: expected auto or a number from 0 to 1"):
        settings_named(payload_scale=scale)


def test_contention_is_true_or_false():
    with pytest.raises(ValueError, match=r"transfer.contention=1: expected true or false"):
        settings_named(contention=1)
