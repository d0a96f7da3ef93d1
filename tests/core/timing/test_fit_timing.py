"""The committed fits against the measurements they come from."""

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[3] / "tools" / "fit_timing.py"
spec = importlib.util.spec_from_file_location("fit_timing", TOOL)
fit_timing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fit_timing)


@pytest.fixture(scope="module")
def pairs():
    if not (fit_timing.DATA / "splitwise_profile").is_dir():
        pytest.skip("needs $EMU_DATA/splitwise_profile")
    return fit_timing.all_pairs()


def test_the_committed_files_are_what_the_tool_writes(pairs):
    for path, text in fit_timing.files(pairs).items():
        assert path.read_text() == text


def test_errors_inside_and_held_out(pairs, timing):
    for pair in pairs:
        committed = timing("profile", pair.model.name, pair.hardware.name)
        prefill = [abs(pair.prefill_error(committed, config)) for config in pair.times if config.is_built]
        decode = [abs(pair.decode_error(committed, config)) for config in pair.times]
        assert max(prefill) < 0.075 and sum(prefill) / len(prefill) < 0.02
        assert max(decode) < 0.075 and sum(decode) / len(decode) < 0.015
        _, prefill_held_out, prefill_input_out, _, _, decode_held_out, decode_at_64, _ = fit_timing.errors(pair)
        assert prefill_held_out < 5 and prefill_input_out < 6
        assert decode_held_out < 3 and abs(decode_at_64) < 5


def test_isotonic_regression_pools_what_falls():
    assert fit_timing.non_decreasing([3.0, 1.0, 2.0, 5.0, 4.0], [1, 1, 2, 1, 3]) == [2.0, 2.0, 2.0, 4.25, 4.25]
