import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.core.batch import Prefill
from emu.core.setting import SettingError
from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing.biased import Biased
from emu.core.timing.calibrated import COSTS, CalibratedFamily, CalibratedTiming
from emu.core.timing.chunk import prefill_pass_s
from emu.core.timing.constant import ConstantTiming
from emu.core.timing.model import TimingModel
from emu.core.timing.profile import MIN_NUMPY_STEPS

FIGURES = {
    "pass_tokens": [2, 100, 400],
    "pass_s": [0.02, 0.118, 0.718],
    "pair_s": 1e-5,
    "seq_s": 1e-3,
    "mixed_kv_read_s_per_token": 2e-6,
    "decode_num_seqs": [1, 2, 4],
    "decode_s": [0.010, 0.012, 0.020],
    "kv_read_s_per_token": 1e-6,
    "kv_read_growth_s": 3e-9,
    "max_seq_context_tokens": 1000,
    "prefill_error_tokens": [1, 50, 200],
    "prefill_error": [0.09, 0.05, 0.02],
    "decode_error_num_seqs": [1, 3],
    "decode_error": [0.04, 0.03],
    "mixed_error_tokens": [1],
    "mixed_error": [0.07],
}
MODEL = ModelSpec("m", 10, 1, 1, 1, 1, 1)
HARDWARE = HardwareSpec("h", 1, 1000, 1.0, 1.0, 0, 1.0, 0.0, 1.0, 1.0, 0.0)
SEQS, TOKENS = st.integers(1, 50), st.integers(1, 2000)


def hand_made(**changes) -> CalibratedTiming:
    return CalibratedTiming(**FIGURES | changes)


def test_hand_computed_times():
    timing = hand_made()
    assert timing.probe_s("prefill") is None
    assert timing.prefill_s([50]) == pytest.approx(0.068 + 1e-5 * 1275 + 1e-3)
    assert timing.prefill_s([30, 20]) == pytest.approx(0.068 + 1e-5 * (465 + 210) + 2e-3)
    assert timing.prefill_s([1]) == pytest.approx(0.02 + 1e-5 + 1e-3)  # flat below the first point
    assert timing.prefill_s([500]) == pytest.approx(0.718 + 0.2 + 1e-5 * 125_250 + 1e-3)  # the last slope, and attention
    assert timing.mixed_s([30, 20], 10, 3000) == pytest.approx(0.078 + 1e-5 * 675 + 12e-3 + 6e-3)
    assert timing.decode_s(3, 500) == pytest.approx(0.016 + 500e-6 + 3e-9 * 500**2 / 3)
    assert timing.decode_s(8, 0) == pytest.approx(0.036)
    boundaries = [1.0121 + 1.5e-5, 1.024202 + 3.0606e-5, 1.036306 + 4.6830e-5]  # 3e-9 x (100^2, then 102^2, then 104^2) / 2
    assert timing.decode_boundaries(1.0, 2, 100, 3) == pytest.approx(boundaries)


def test_a_curve_may_fall_in_between():
    assert hand_made(decode_s=[0.010, 0.014, 0.012, 0.020], decode_num_seqs=[1, 3, 4, 8]).decode_s(4, 0) == 0.012


def test_a_mixed_pass_with_only_one_of_the_two_is_that_one():
    timing = hand_made()
    assert timing.mixed_s([30, 20], 0, 0) == timing.prefill_s([30, 20])
    assert timing.mixed_s([], 3, 500) == timing.decode_s(3, 500)


def test_a_later_chunk_costs_its_attention_to_what_is_before_it_and_no_fixed_cost_is_lost():
    timing = hand_made()
    chunk = Prefill(request_id=0, attempt=1, num_tokens=30, num_generated=0, num_before=200, num_left=0)
    assert prefill_pass_s(timing, [chunk], 0, 0) == pytest.approx(timing.prefill_s([30]) + 1e-5 * 30 * 200)
    # The pairs of a prompt in chunks are those of the whole prompt.
    chunks = [chunk._replace(num_before=before, num_left=200 - before) for before in (0, 30, 60)]
    in_chunks = sum(prefill_pass_s(timing, [c], 0, 0) for c in chunks)
    assert in_chunks - 3 * (0.048 + 1e-3) == pytest.approx(1e-5 * 90 * 91 / 2)


@given(st.data())
def test_boundaries_equal_the_loop_to_the_bit(data):
    timing = hand_made()
    start_s = data.draw(st.floats(0, 1e6))
    num_seqs, context = data.draw(SEQS), data.draw(st.integers(0, 2_000_000))
    num_steps = data.draw(st.integers(0, 3 * MIN_NUMPY_STEPS))
    boundaries = timing.decode_boundaries(start_s, num_seqs, context, num_steps)
    assert boundaries == TimingModel.decode_boundaries(timing, start_s, num_seqs, context, num_steps)
    assert all(type(boundary) is float for boundary in boundaries)


@given(prompts=st.lists(TOKENS, min_size=1, max_size=4), more=TOKENS, num_seqs=SEQS, context=TOKENS)
def test_more_work_never_takes_less_time(prompts, more, num_seqs, context):
    timing = hand_made()
    assert 0 < timing.prefill_s(prompts) <= timing.prefill_s([*prompts, more])
    assert timing.prefill_s(prompts) <= timing.prefill_s([prompts[0] + more, *prompts[1:]])
    assert timing.prefill_s(prompts) < timing.mixed_s(prompts, num_seqs, context)
    assert timing.decode_s(num_seqs, context) <= timing.decode_s(num_seqs, context + more)
    assert timing.decode_s(num_seqs, num_seqs * context) <= timing.decode_s(num_seqs + 1, (num_seqs + 1) * context)


@pytest.mark.parametrize(
    ("prompts", "num_seqs", "context", "extrapolated"),
    [
        ([1], 0, 0, True),
        ([2], 0, 0, False),
        ([200, 200], 0, 0, False),
        ([200, 201], 0, 0, True),
        ([399], 1, 1000, False),
        ([400], 1, 1000, True),
        ([10], 4, 4001, True),
        ([10], 5, 5, True),
        ([], 4, 4000, False),
        ([], 4, 4001, True),
        ([], 5, 5, True),
    ],
)
def test_extrapolation_is_flagged(prompts, num_seqs, context, extrapolated):
    assert hand_made().extrapolates(prompts, num_seqs, context) is extrapolated


@pytest.mark.parametrize(
    ("prompts", "num_seqs", "error"),
    [
        ([1], 0, 0.09),
        ([49], 0, 0.09),
        ([30, 20], 0, 0.05),
        ([200], 0, 0.02),
        ([9999], 0, 0.02),
        ([], 1, 0.04),
        ([], 2, 0.04),
        ([], 3, 0.03),
        ([], 999, 0.03),
        ([49], 1, 0.07),
    ],
)
def test_the_stated_error_is_that_of_the_region(prompts, num_seqs, error):
    assert hand_made().relative_error(prompts, num_seqs, 100) == error


def test_no_error_is_stated_of_a_phase_without_regions():
    timing = hand_made(mixed_error_tokens=[], mixed_error=[])
    assert timing.relative_error([49], 1, 100) is None
    assert timing.relative_error([49], 0, 0) == 0.09


def test_biased_takes_each_pass_to_the_end_of_its_error():
    timing = hand_made()
    slow, fast = Biased(timing, 1), Biased(timing, -1)
    assert slow.prefill_s([60]) == pytest.approx(1.05 * timing.prefill_s([60]))
    assert fast.prefill_s([60]) == pytest.approx(0.95 * timing.prefill_s([60]))
    assert slow.decode_s(4, 100) == pytest.approx(1.03 * timing.decode_s(4, 100))
    assert fast.mixed_s([60], 4, 100) == pytest.approx(0.93 * timing.mixed_s([60], 4, 100))
    assert slow.chunk_attention_s(60, 300) == pytest.approx(1.05 * timing.chunk_attention_s(60, 300))
    assert slow.decode_boundaries(0.0, 1, 10, 2) == pytest.approx([1.04 * t for t in timing.decode_boundaries(0.0, 1, 10, 2)])
    assert slow.extrapolates([500], 0, 0) and not slow.extrapolates([50], 0, 0)
    assert slow.relative_error([60], 0, 0) == 0.05


def test_biased_leaves_a_pass_without_a_stated_error_and_never_takes_all_of_one():
    constant = ConstantTiming(1e-4, 0.03)
    assert constant.relative_error([10], 0, 0) is None
    assert Biased(constant, 1).decode_s(3, 10) == 0.03
    assert Biased(hand_made(prefill_error=[4.0, 2.0, 1.0]), -1).prefill_s([60]) > 0


def test_it_travels_by_pickle():
    timing = pickle.loads(pickle.dumps(Biased(hand_made(), 1)))
    assert timing.decode_s(4, 100) == Biased(hand_made(), 1).decode_s(4, 100)


def test_the_family_finds_the_calibration_of_model_and_hardware():
    family = CalibratedFamily(1, {"m": {"h": FIGURES}})
    assert family.for_machine(MODEL, HARDWARE).decode_s(3, 500) == hand_made().decode_s(3, 500)
    with pytest.raises(SettingError, match=r"timing\.fits\.m\.h\.speed: no such figure; there are pass_tokens, "):
        CalibratedFamily(1, {"m": {"h": FIGURES | {"speed": 1.0}}})


def test_a_slower_machine_takes_longer_by_phase():
    timing = hand_made(probe_prefill_s=0.05, probe_decode_s=0.01)
    fits = {"m": {"h": FIGURES | {"probe_prefill_s": 0.05, "probe_decode_s": 0.01}}}
    slower = CalibratedFamily(1, fits, prefill_speed=0.8, decode_speed=0.5).for_machine(MODEL, HARDWARE)
    assert slower.prefill_s([30, 20]) == pytest.approx(timing.prefill_s([30, 20]) / 0.8)
    assert slower.mixed_s([30, 20], 3, 500) == pytest.approx(timing.mixed_s([30, 20], 3, 500) / 0.8)
    assert slower.chunk_attention_s(30, 200) == pytest.approx(timing.chunk_attention_s(30, 200) / 0.8)
    assert slower.decode_s(3, 500) == pytest.approx(2 * timing.decode_s(3, 500))
    assert (slower.probe_s("prefill"), slower.probe_s("decode")) == (pytest.approx(0.0625), pytest.approx(0.02))
    assert slower.relative_error([60], 0, 0) == timing.relative_error([60], 0, 0)
    assert not slower.extrapolates([400], 0, 0) and slower.extrapolates([401], 0, 0)


def test_every_figure_that_is_a_time_goes_with_a_speed():
    times = {name for name in FIGURES if name.endswith(("_s", "_s_per_token"))}
    assert times == {name for names in COSTS.values() for name in names if not name.startswith("probe_")}


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_speed_of_nothing_is_refused(phase):
    with pytest.raises(SettingError, match=f"timing.{phase}_speed=0: expected a number > 0"):
        CalibratedFamily(1, {}, **{f"{phase}_speed": 0})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"pass_s": [0.3, 0.4, 0.2]}, r"timing\.pass_s\[2\]=0\.2: falls; expected at least 0\.4"),
        ({"decode_s": [0.0, 0.1, 0.2]}, r"timing\.decode_s\[0\]=0\.0: expected a number from 1e-09"),
        ({"pass_tokens": [0, 10, 20]}, r"pass_tokens\[0\]=0: expected a whole number from 1 "),
        ({"pass_tokens": [100, 400, 400]}, r"pass_tokens\[2\]=400: does not ascend"),
        ({"decode_s": [0.1, 0.2]}, r"decode_s=\[0\.1, 0\.2\]: 2 numbers; expected 3, one for each of decode_num_seqs"),
        ({"decode_error": [0.1]}, r"decode_error=\[0\.1\]: 1 numbers; expected 2, one for each of decode_error_num_seqs"),
        ({"mixed_error_tokens": []}, r"mixed_error=\[0\.07\]: 1 numbers; expected 0"),
        ({"prefill_error_tokens": [5, 5, 6]}, r"prefill_error_tokens\[1\]=5: does not ascend"),
    ],
)
def test_impossible_figures_are_refused(changes, text):
    with pytest.raises(SettingError, match=text):
        hand_made(**changes)


@pytest.mark.parametrize("name", ["pair_s", "seq_s", "kv_read_s_per_token", "kv_read_growth_s", "mixed_kv_read_s_per_token"])
def test_a_figure_below_zero_is_refused(name):
    with pytest.raises(SettingError, match=f"timing.{name}=-1e-06: expected a number from 0 to 1e\\+06"):
        hand_made(**{name: -1e-6})
