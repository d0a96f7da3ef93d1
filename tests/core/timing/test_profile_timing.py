import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.core.setting import SettingError
from emu.core.timing.model import TimingModel
from emu.core.timing.profile import MIN_NUMPY_STEPS, ProfileTiming

PAIRS = [(m, h) for m in ("llama2_70b", "bloom_176b") for h in ("dgx_a100", "dgx_h100", "dgx_h100_capped")]
MEAN_CONTEXT = 576  # of a sequence with 512 prompt and 128 output tokens
SEQS = st.integers(1, 700)
TOKENS = st.integers(1, 40_000)


def hand_made(**changes) -> ProfileTiming:
    figures = {
        "prefill_tokens": [100, 200, 400],
        "prefill_s": [0.1, 0.2, 0.6],
        "pair_saving_s": 2e-6,
        "attention_per_token": 0.01,
        "decode_num_seqs": [1, 2, 4],
        "decode_s": [0.010, 0.012, 0.020],
        "kv_read_s_per_token": 1e-6,
        "max_seq_context_tokens": 1000,
    }
    return ProfileTiming(**figures | changes)


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def fitted(request, timing):
    return timing("profile", *request.param)


def test_hand_computed_times():
    timing = hand_made()
    assert timing.prefill_s([150]) == pytest.approx(0.15)
    assert timing.prefill_s([90, 60]) == pytest.approx(0.15 - 2e-6 * 2 * 90 * 60)
    assert timing.mixed_s([90, 60], 5, 500) == pytest.approx(0.155 - 2e-6 * 2 * 90 * 60 + 500e-6)
    assert timing.prefill_s([99, 1]) == 0.1  # never less than the longest prompt alone
    assert timing.prefill_s([7]) == 0.1
    assert timing.decode_s(3, 500) == pytest.approx(0.016 + 500e-6)
    assert timing.mixed_s([147], 3, 500) == pytest.approx(0.15 + 500e-6)
    assert timing.decode_boundaries(1.0, 2, 100, 3) == pytest.approx([1.0121, 1.024202, 1.036306])


def test_beyond_the_points_physics_goes_on():
    timing = hand_made()
    # Slope 0.002 a token at 400 tokens, where attention is 4 of 5 parts of a token's work and grows with its position.
    assert timing.prefill_s([500]) == pytest.approx(0.6 + 0.002 * (100 + 0.01 / (1 + 4) * 100**2 / 2))
    assert timing.decode_s(10, 0) == pytest.approx(0.020 + 6 * 0.004)


def test_beyond_the_points_what_prompts_save_stops_growing():
    timing = hand_made()
    whole, at_end = timing.prefill_s([4000]), 2e-6 * (400**2 - 2 * 200**2)
    assert timing.prefill_s([2000, 2000]) == pytest.approx(whole - at_end)
    assert timing.prefill_s([200, 200]) == pytest.approx(0.6 - at_end)


def test_mixed_pass_with_only_one_of_the_two_is_that_one(fitted):
    assert fitted.mixed_s([1000, 200], 0, 0) == fitted.prefill_s([1000, 200])
    assert fitted.mixed_s([], 30, 40_000) == fitted.decode_s(30, 40_000)


@given(st.data())
def test_boundaries_equal_the_loop_to_the_bit(fitted, data):
    start_s = data.draw(st.floats(0, 1e6))
    num_seqs, context = data.draw(SEQS), data.draw(st.integers(0, 2_000_000))
    num_steps = data.draw(st.integers(0, 3 * MIN_NUMPY_STEPS))
    boundaries = fitted.decode_boundaries(start_s, num_seqs, context, num_steps)
    assert boundaries == TimingModel.decode_boundaries(fitted, start_s, num_seqs, context, num_steps)
    assert all(type(boundary) is float for boundary in boundaries)


@given(shorter=TOKENS, more=TOKENS)
def test_prefill_never_falls_with_tokens(fitted, shorter, more):
    assert 0 < fitted.prefill_s([shorter]) <= fitted.prefill_s([shorter + more])
    assert fitted.prefill_s([shorter]) <= fitted.prefill_s([shorter, more])


@pytest.mark.parametrize("tokens", [512, 1024, 2048, 4096, 8192, 16384])
def test_prefill_rises_where_it_is_compute_bound(fitted, tokens):
    assert fitted.prefill_s([tokens]) < 0.8 * fitted.prefill_s([2 * tokens])


@given(num_seqs=SEQS, context=TOKENS, more_seqs=SEQS, more_context=TOKENS)
def test_decode_never_falls_with_batch_and_rises_with_context(fitted, num_seqs, context, more_seqs, more_context):
    assert 0 < fitted.decode_s(num_seqs, context) <= fitted.decode_s(num_seqs + more_seqs, context)
    assert fitted.decode_s(num_seqs, context) < fitted.decode_s(num_seqs, context + more_context)


@given(prompts=st.lists(TOKENS, min_size=1, max_size=4), num_seqs=SEQS, context=TOKENS)
def test_mixed_pass_is_never_shorter_than_its_parts(fitted, prompts, num_seqs, context):
    mixed_s = fitted.mixed_s(prompts, num_seqs, context)
    assert mixed_s >= fitted.decode_s(num_seqs, context)
    assert mixed_s >= fitted.prefill_s(prompts)


def test_scalars_are_python_floats(fitted):
    for value in (fitted.prefill_s([300, 9000]), fitted.decode_s(3, 2000), fitted.mixed_s([300], 80, 2000)):
        assert type(value) is float


@pytest.mark.parametrize(
    ("prompts", "num_seqs", "context", "extrapolated"),
    [
        ([128], 0, 0, False),
        ([127], 0, 0, True),
        ([8192], 0, 0, False),
        ([8193], 0, 0, True),
        ([4096, 4096], 0, 0, False),
        ([4096, 4097], 0, 0, True),
        ([], 64, 64 * 8320, False),
        ([], 65, 65, True),
        ([], 2, 2 * 8320 + 1, True),
        ([100], 28, 1000, False),
        ([8192], 1, 1000, True),
    ],
)
def test_extrapolation_is_flagged(fitted, prompts, num_seqs, context, extrapolated):
    assert fitted.extrapolates(prompts, num_seqs, context) is extrapolated


# Medians of the profile, in ms.
@pytest.mark.parametrize(
    ("model", "hardware", "prefill_1024", "prefill_4096", "decode_1", "decode_64"),
    [
        ("llama2_70b", "dgx_a100", 154.5, 661.2, 44.84, 71.61),
        ("llama2_70b", "dgx_h100", 77.9, 390.3, 29.76, 50.16),
        ("bloom_176b", "dgx_a100", 289.2, 1348.2, 48.76, 96.58),
        ("bloom_176b", "dgx_h100", 132.6, 688.7, 36.11, 63.82),
    ],
)
def test_committed_fits_reproduce_measurements(timing, model, hardware, prefill_1024, prefill_4096, decode_1, decode_64):
    fitted = timing("profile", model, hardware)
    assert 1000 * fitted.prefill_s([1024]) == pytest.approx(prefill_1024, rel=0.01)
    assert 1000 * fitted.prefill_s([4096]) == pytest.approx(prefill_4096, rel=0.01)
    assert 1000 * fitted.decode_s(1, MEAN_CONTEXT) == pytest.approx(decode_1, rel=0.03)
    assert 1000 * fitted.decode_s(64, 64 * MEAN_CONTEXT) == pytest.approx(decode_64, rel=0.01)


@pytest.mark.parametrize("model", ["llama2_70b", "bloom_176b"])
def test_capped_h100_prefills_slower_and_decodes_alike(timing, model):
    capped, full = (timing("profile", model, hardware) for hardware in ("dgx_h100_capped", "dgx_h100"))
    assert capped.prefill_s([1500]) == pytest.approx(1.3 * full.prefill_s([1500]), rel=1e-4)
    assert capped.decode_s(20, 30_000) == full.decode_s(20, 30_000)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"prefill_s": [0.3, 0.2, 0.6]}, r"timing\.prefill_s\[1\]=0\.2: falls; expected at least 0\.3"),
        ({"decode_s": [0.0, 0.1, 0.2]}, r"timing\.decode_s\[0\]=0\.0: expected a number from 1e-09 to 1e\+06"),
        ({"decode_num_seqs": [2, 3, 4]}, r"timing\.decode_num_seqs\[0\]=2: expected 1"),
        ({"pair_saving_s": 4e-6}, r"pair_saving_s=4e-06: leaves nothing of a pass of 400 tokens, 0\.6 s; expected less"),
        ({"prefill_tokens": [100, 400, 400]}, r"prefill_tokens\[2\]=400: does not ascend; expected more than 400"),
        ({"decode_s": [0.1, 0.2]}, r"decode_s=\[0\.1, 0\.2\]: 2 numbers; expected 3, one for each of decode_num_seqs"),
    ],
)
def test_impossible_figures_are_refused(changes, text):
    with pytest.raises(SettingError, match=text):
        hand_made(**changes)
