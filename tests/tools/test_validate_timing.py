"""How well the timing model predicts what it was not fitted to."""

import importlib
import json
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
PAIRS = [(m, h) for m in ("llama2_70b", "bloom_176b") for h in ("dgx_a100", "dgx_h100", "dgx_h100_capped")]


@pytest.fixture(scope="module")
def tool():
    """The script, as it is when started: beside the modules of its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        yield importlib.import_module("validate_timing")


@pytest.fixture(scope="module")
def pairs(tool):
    if not (sys.modules["fit_timing"].DATA / "splitwise_profile").is_dir():
        pytest.skip("needs $EMU_DATA/splitwise_profile")
    return {(pair.model.name, pair.hardware.name): pair for pair in tool.all_pairs()}


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request, pairs):
    return pairs[request.param]


def test_what_is_held_out_is_predicted_better_than_the_published_model_does(tool, pair):
    rows = [*tool.prefill_rows(pair), *tool.decode_rows(pair)]
    summary = tool.summarize(pair, rows)
    for phase in ("prefill", "decode"):
        figures = summary[phase]
        assert figures["meets"]
        assert figures["in_sample"] < 1.5
        assert figures["held_out"] < figures["published_held_out"]
    assert summary["prefill"]["held_out"] < 4
    assert summary["decode_at_batch_64"]["meets"]
    assert summary["decode_at_batch_64"]["published_in_sample"] < -38  # SPLITWISE.md §9: 39-51 % too fast


def test_every_configuration_is_there_once(tool, pair):
    prefills, decodes = tool.prefill_rows(pair), tool.decode_rows(pair)
    assert [(row.batch_size, row.prompt_tokens) for row in prefills if row.where == "inside"] == [
        (1, 256),
        (1, 512),
        (2, 512),
        (4, 512),
        (1, 1024),
        (1, 2048),
        (1, 4096),
    ]
    assert [row.batch_size for row in prefills if row.where == "beyond"] == [8, 16, 32, 64]
    assert [row.prompt_tokens for row in prefills if row.where == "end"] == [128, 8192]
    assert len(decodes) == len({(row.prompt_tokens, row.batch_size, row.output_tokens) for row in decodes}) == 19
    assert [(row.batch_size, row.prompt_tokens) for row in decodes if row.where == "end"] == [(1, 128), (64, 512), (1, 8192)]


def test_the_error_is_of_the_fit_without_the_configuration(tool, pairs):
    """By hand: without its row of 4,096 tokens, BLOOM on DGX-A100 takes the batch of 8 x 512, and what the others save."""
    pair = pairs["bloom_176b", "dgx_a100"]
    prefill = {config[:2]: time_s for config, time_s in pair.prefill.items() if config.output_tokens == 128}
    saved_s = sorted((prefill[512 * n, 1] - prefill[512, n]) / ((512 * n) ** 2 - n * 512**2) for n in (2, 4, 16))
    predicted_s = prefill[512, 8] + saved_s[1] * (4096**2 - 8 * 512**2)
    [row] = [row for row in tool.prefill_rows(pair) if (row.prompt_tokens, row.batch_size) == (4096, 1)]
    assert row.held_out == pytest.approx(100 * (predicted_s / prefill[4096, 1] - 1))
    between_s = prefill[2048, 1] + (prefill[8192, 1] - prefill[2048, 1]) / 3
    assert row.tokens_out == pytest.approx(100 * (between_s / prefill[4096, 1] - 1))


def test_the_table_and_the_file(tool, pairs, tmp_path, monkeypatch, capsys):
    path = tmp_path / "errors.json"
    monkeypatch.setattr(sys, "argv", ["validate_timing.py", "--json", str(path)])
    tool.main()
    out = capsys.readouterr().out
    written = json.loads(path.read_text())
    assert [(row["model"], row["hardware"]) for row in written["summary"]] == PAIRS
    for row in written["summary"]:
        line = next(line for line in out.splitlines() if {row["model"], row["hardware"]} <= set(line.split()))
        figures = [row["prefill"]["held_out"], row["prefill"]["published_held_out"], row["decode"]["held_out"]]
        assert {f"{figure:.1f}" for figure in figures} <= set(line.split())
    assert len(written["configurations"]) == 6 * (13 + 19)
