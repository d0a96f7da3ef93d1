"""The published simulator's times, as printed in SPLITWISE.md §9 (BLOOM-176B on DGX-H100)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.core.timing.model import TimingModel


@pytest.fixture(scope="module")
def bloom(timing):
    return timing("splitwise_sim", "bloom_176b", "dgx_h100")


def printed(duration_s: float) -> str:
    return f"{1000 * duration_s:.3f}"


@pytest.mark.parametrize(
    ("prompts", "num_seqs", "milliseconds"),
    [
        ([1000], 0, "129.588"),
        ([1000, 1000], 0, "246.351"),
        ([3000], 0, "436.802"),
        ([200], 0, "49.913"),
        ([1000, 1000], 1, "271.115"),
        ([200], 4, "55.004"),
    ],
)
def test_worked_example(bloom, prompts, num_seqs, milliseconds):
    assert printed(bloom.mixed_s(prompts, num_seqs, 1000 * num_seqs)) == milliseconds


def test_decode_is_read_on_the_axis_of_prompt_tokens(bloom):
    # The line through the medians at 128 and 256 tokens, 35.739242 and 36.154480 ms, continued down to 64 and to 1.
    assert 1000 * bloom.decode_s(64, 10**6) == pytest.approx(35.739242 - 64 / 128 * (36.154480 - 35.739242), abs=1e-6)
    assert 1000 * bloom.decode_s(1, 0) == pytest.approx(35.739242 - 127 / 128 * (36.154480 - 35.739242), abs=1e-6)
    assert bloom.mixed_s([], 64, 0) == bloom.decode_s(64, 0)


def test_first_and_last_line_continue(bloom):
    assert bloom.prefill_s([256]) - bloom.prefill_s([128]) == pytest.approx(
        2 * (bloom.prefill_s([128]) - bloom.prefill_s([64]))
    )
    assert bloom.prefill_s([65536]) - bloom.prefill_s([32768]) == pytest.approx(
        2 * (bloom.prefill_s([32768]) - bloom.prefill_s([16384]))
    )


@given(start_s=st.floats(0, 1e6), num_seqs=st.integers(1, 512), context=st.integers(0, 10**6), num_steps=st.integers(0, 90))
def test_boundaries_equal_the_loop_to_the_bit(bloom, start_s, num_seqs, context, num_steps):
    assert bloom.decode_boundaries(start_s, num_seqs, context, num_steps) == TimingModel.decode_boundaries(
        bloom, start_s, num_seqs, context, num_steps
    )


def test_only_prompts_outside_the_points_are_extrapolated(bloom):
    assert bloom.extrapolates([100], 0, 0) and bloom.extrapolates([32768], 1, 0)
    assert not bloom.extrapolates([100], 28, 0) and not bloom.extrapolates([], 512, 0)
