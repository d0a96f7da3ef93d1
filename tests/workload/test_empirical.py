import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from emu.core.setting import SettingError
from emu.workload.empirical import LENGTHS_DIR, Empirical
from emu.workload.traces.read import read_trace

TOOL = Path(__file__).parents[2] / "tools" / "length_tables.py"
SERVICES = ("azure_conv", "azure_code")


def build(lengths="azure_conv", seed=0, rate_rps=70, duration_s=60, arrivals="poisson", cv=1):
    return Empirical(lengths, rate_rps, duration_s, arrivals, cv).build(seed)


def real_lengths(data_dir: Path, lengths: str):
    trace = data_dir / "azure_llm_2023" / f"AzureLLMInferenceTrace_{lengths.removeprefix('azure_')}.csv"
    rows = read_trace(trace)
    return {"prompt_tokens": rows.prompts, "output_tokens": rows.output_tokens}


@pytest.mark.parametrize(
    ("lengths", "prompt_tokens", "output_tokens"),
    [
        ("azure_conv", (396, 1020, 1189, 2735, 4142, 14050), (85, 129, 395, 424, 601, 1000)),
        ("azure_code", (578, 1469, 2745, 5188, 7436, 7437), (9, 13, 24, 55, 252, 1899)),
    ],
)
def test_tables_hold_the_published_quantiles(lengths, prompt_tokens, output_tokens):
    quantile, *columns = np.loadtxt(LENGTHS_DIR / f"{lengths}.csv", delimiter=",", unpack=True)
    assert quantile[0] == 0 and quantile[-1] == 1 and (np.diff(quantile) > 0).all()
    for column, published in zip(columns, (prompt_tokens, output_tokens), strict=True):
        assert (np.diff(column) >= 0).all()
        at_quantile = np.interp([0.25, 0.5, 0.75, 0.9, 0.99, 1], quantile, column)
        np.testing.assert_allclose(at_quantile, published, rtol=1e-3, atol=1)


@pytest.mark.parametrize("column", ["prompt_tokens", "output_tokens"])
@pytest.mark.parametrize("lengths", SERVICES)
def test_drawn_lengths_match_the_real_trace(data_dir, lengths, column):
    drawn = getattr(build(lengths, rate_rps=2000, duration_s=100), column)
    real = real_lengths(data_dir, lengths)[column]
    standard_error = real.std() / np.sqrt(len(drawn))
    assert drawn.mean() == pytest.approx(real.mean(), abs=4 * standard_error)
    assert drawn.std() == pytest.approx(real.std(), rel=0.03)
    assert (drawn.min(), drawn.max()) == pytest.approx((real.min(), real.max()), rel=0.05, abs=1)
    quantiles = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99]
    np.testing.assert_allclose(np.quantile(drawn, quantiles), np.quantile(real, quantiles), rtol=0.015, atol=1)
    tokens = np.arange(real.max() + 1)
    cdfs = (np.searchsorted(np.sort(sample), tokens, side="right") / len(sample) for sample in (drawn, real))
    assert np.abs(np.subtract(*cdfs)).max() < 0.006  # Kolmogorov-Smirnov; of it 0.0044 is chance, at 0.1 %


@pytest.mark.parametrize("lengths", SERVICES)
def test_committed_tables_are_what_the_tool_writes(data_dir, lengths, tmp_path):
    spec = importlib.util.spec_from_file_location(TOOL.stem, TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    trace = data_dir / "azure_llm_2023" / f"AzureLLMInferenceTrace_{lengths.removeprefix('azure_')}.csv"
    tool.write_table(trace, "some", tmp_path / "table.csv")
    written, committed = (np.loadtxt(path, delimiter=",") for path in (tmp_path / "table.csv", LENGTHS_DIR / f"{lengths}.csv"))
    np.testing.assert_allclose(written, committed, rtol=0, atol=1)  # a half may round either way


def test_short_requests_fit_small_models():
    drawn = build("short", rate_rps=1000)
    for tokens, low, high, mean in ((drawn.prompt_tokens, 64, 512, 215), (drawn.output_tokens, 8, 64, 36)):
        assert low <= tokens.min() and tokens.max() <= high
        assert tokens.mean() == pytest.approx(mean, rel=0.01)


def test_prompt_and_output_are_independent():
    workload = build(rate_rps=1000, duration_s=100)
    assert abs(np.corrcoef(workload.prompt_tokens, workload.output_tokens)[0, 1]) < 4 / np.sqrt(len(workload))


@pytest.mark.parametrize("other", [dict(rate_rps=7), dict(duration_s=11), dict(arrivals="gamma", cv=3)])
def test_lengths_depend_on_seed_and_index_alone(other):
    workload, changed = build(seed=5), build(seed=5, **other)
    num_shared = min(len(workload), len(changed))
    assert num_shared > 100
    for column in ("prompt_tokens", "output_tokens"):
        np.testing.assert_array_equal(getattr(workload, column)[:num_shared], getattr(changed, column)[:num_shared])
    assert not np.array_equal(workload.prompt_tokens[:num_shared], build(seed=6).prompt_tokens[:num_shared])


def test_an_unknown_table_is_one_clear_line():
    text = "workload.lengths=sharegpt: expected one of azure_code, azure_conv, short"
    with pytest.raises(SettingError, match=f"^{re.escape(text)}$"):
        build("sharegpt")
