"""The committed fits against the measurements they come from."""

import importlib
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[3] / "tools"


@pytest.fixture(scope="module")
def tools():
    """The fit and its validation, as when started: beside the modules of their folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        yield importlib.import_module("fit_timing"), importlib.import_module("validate_timing")


@pytest.fixture(scope="module")
def fit_timing(tools):
    return tools[0]


@pytest.fixture(scope="module")
def pairs(fit_timing):
    if not (fit_timing.DATA / "splitwise_profile").is_dir():
        pytest.skip("needs $EMU_DATA/splitwise_profile")
    return fit_timing.all_pairs()


def test_the_committed_files_are_what_the_tool_writes(tools, pairs):
    fit_timing, validate_timing = tools
    error = validate_timing.stated_error(pairs)
    assert error == "prefill 1.3 to 3.5 %, decode 1.3 to 2.2 %: mean absolute, each configuration held out in turn"
    for path, text in fit_timing.files(pairs, error).items():
        assert path.read_text() == text


def test_a_batch_of_prompts_saves_the_attention_between_them(fit_timing):
    config = fit_timing.Config
    single = {config(512, 1, 128): 0.1, config(1024, 1, 128): 0.2, config(2048, 1, 128): 0.4}
    batches = {config(512, 2, 128): 0.2 - 3e-8 * 512 * 1024, config(512, 4, 128): 0.4 - 3e-8 * 1536 * 2048}
    fit = fit_timing.fit_prefill(single | batches)
    assert fit["pair_saving_s"] == pytest.approx(3e-8)
    assert fit["prefill_tokens"] == [512, 1024, 2048]
    del single[config(1024, 1, 128)]  # the batch of as many tokens stands in, by what the other one saves
    without = fit_timing.fit_prefill(single | batches)
    assert without["prefill_s"] == pytest.approx(fit["prefill_s"])


def test_isotonic_regression_pools_what_falls(fit_timing):
    assert fit_timing.non_decreasing([3.0, 1.0, 2.0, 5.0, 4.0], [1, 1, 2, 1, 3]) == [2.0, 2.0, 2.0, 4.25, 4.25]
