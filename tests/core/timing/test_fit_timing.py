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


def test_a_batch_of_prompts_saves_the_attention_between_them():
    config = fit_timing.Config
    single = {config(512, 1, 128): 0.1, config(1024, 1, 128): 0.2, config(2048, 1, 128): 0.4}
    batches = {config(512, 2, 128): 0.2 - 3e-8 * 512 * 1024, config(512, 4, 128): 0.4 - 3e-8 * 1536 * 2048}
    fit = fit_timing.fit_prefill(single | batches)
    assert fit["pair_saving_s"] == pytest.approx(3e-8)
    assert fit["prefill_tokens"] == [512, 1024, 2048]
    del single[config(1024, 1, 128)]  # the batch of as many tokens stands in, by what the other one saves
    without = fit_timing.fit_prefill(single | batches)
    assert without["prefill_s"] == pytest.approx(fit["prefill_s"])


def test_isotonic_regression_pools_what_falls():
    assert fit_timing.non_decreasing([3.0, 1.0, 2.0, 5.0, 4.0], [1, 1, 2, 1, 3]) == [2.0, 2.0, 2.0, 4.25, 4.25]
