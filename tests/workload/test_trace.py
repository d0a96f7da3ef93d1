import inspect
import re
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.core.setting import SettingError
from emu.workload.prediction import NoisyPrediction
from emu.workload.trace import Trace
from emu.workload.traces.formats import TRACE_FORMATS
from emu.workload.traces.read import read_trace
from emu.workload.workload import WorkloadError

ARRIVAL_S = np.array([0.5, 1.0, 1.0, 2.25, 7.5, 10.0, 40.0])


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    """A trace of seven requests; the i-th has i + 1 prompt and 10 (i + 1) output tokens."""
    rows = [f"{arrival_s},{i + 1},{10 * (i + 1)}" for i, arrival_s in enumerate(ARRIVAL_S)]
    path = tmp_path_factory.mktemp("trace") / "seven.csv"
    path.write_text("\n".join(["arrival_timestamp,prompt_size,token_size", *rows]))
    return path


def in_window(start_s, duration_s):
    start, end = Decimal(repr(start_s)), Decimal(repr(start_s)) + Decimal(repr(duration_s))
    return np.array([start <= Decimal(repr(arrival_s)) < end for arrival_s in ARRIVAL_S.tolist()])


def trace(path, **settings):
    defaults = dict(format="auto", tokenizer="", start_s=0, duration_s=60, rate_scale=1)
    defaults |= dict(time_unit="auto", zero_outputs="refuse", unsorted="refuse")
    return Trace(str(path), **(defaults | settings))


def test_the_window_starts_at_0_and_excludes_its_end(path):
    workload = trace(path, start_s=1, duration_s=6.5).build(seed=0)
    assert workload.name == "seven.csv"
    np.testing.assert_array_equal(workload.arrival_s, [0, 0, 1.25])
    np.testing.assert_array_equal(workload.prompt_tokens, [2, 3, 4])
    np.testing.assert_array_equal(workload.output_tokens, [20, 30, 40])


def test_an_infinite_duration_is_to_the_end(path):
    assert len(trace(path, start_s=2, duration_s=float("inf")).build(seed=0)) == 4


@settings(deadline=None)
@given(st.floats(0, 45), st.floats(0.01, 50), st.floats(0.1, 20))
def test_the_scale_changes_times_and_never_the_requests(path, start_s, duration_s, rate_scale):
    inside = in_window(start_s, duration_s)
    source = trace(path, start_s=start_s, duration_s=duration_s, rate_scale=rate_scale)
    if not inside.any():
        with pytest.raises(WorkloadError, match="no request arrives"):
            source.build(seed=0)
        return
    workload = source.build(seed=0)
    np.testing.assert_array_equal(workload.prompt_tokens, np.flatnonzero(inside) + 1)
    np.testing.assert_allclose(workload.arrival_s * rate_scale + start_s, ARRIVAL_S[inside], rtol=1e-12)
    assert (workload.arrival_s <= duration_s / rate_scale).all()


@settings(deadline=None)
@given(st.floats(0.01, 45))
def test_adjacent_windows_share_and_lose_nothing(path, cut_s):
    prompts = []
    for start_s, duration_s in ((0, cut_s), (cut_s, float("inf"))):
        try:
            prompts.extend(trace(path, start_s=start_s, duration_s=duration_s).build(seed=0).prompt_tokens)
        except WorkloadError:
            assert not in_window(start_s, duration_s).any()
    assert prompts == [1, 2, 3, 4, 5, 6, 7]


def test_an_empty_window_says_where_the_trace_is(path):
    message = (
        f"workload.path={path}: no request arrives from workload.start_s=100 for workload.duration_s=60; "
        "the trace's 7 requests arrive from 0.5 to 40 s"
    )
    with pytest.raises(WorkloadError, match=f"^{re.escape(message)}$"):
        trace(path, start_s=100).build(seed=0)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            dict(format="sharegpt"),
            f"workload.format=sharegpt: expected one of auto, {', '.join(TRACE_FORMATS)}",
        ),
        (dict(start_s=-1), "workload.start_s=-1: expected a number >= 0"),
        (dict(start_s=float("inf")), "workload.start_s=inf: expected a number >= 0"),
        (dict(start_s="soon"), "workload.start_s=soon: expected auto or a number >= 0"),
        (dict(time_unit="h"), "workload.time_unit=h: expected one of auto, s, ms, us, ns"),
        (dict(zero_outputs="drop"), "workload.zero_outputs=drop: expected one of refuse, skip"),
        (dict(unsorted="keep"), "workload.unsorted=keep: expected one of refuse, sort"),
        (dict(duration_s=0), "workload.duration_s=0: expected a number > 0, or inf"),
        (dict(duration_s=None), "workload.duration_s=None: expected a number > 0, or inf"),
        (dict(rate_scale=0), "workload.rate_scale=0: expected a number > 0"),
        (dict(rate_scale=float("inf")), "workload.rate_scale=inf: expected a number > 0"),
    ],
)
def test_wrong_settings_are_one_clear_line(path, wrong, text):
    with pytest.raises(SettingError, match=f"^{re.escape(text)}$"):
        trace(path, **wrong)


IDS = '{"timestamp": 2, "prompt_token_ids": [7, 0, 7], "output_length": 4}\n'
IDS += '{"timestamp": 3.5, "prompt_token_ids": [151935], "output_length": 5}\n'
IDS += '{"timestamp": 90, "prompt_token_ids": [1, 2], "output_length": 6}\n'


def test_prompts_keep_to_the_window_and_the_scale(tmp_path):
    path = tmp_path / "ids.jsonl"
    path.write_text(IDS)
    workload = trace(path, start_s=1, duration_s=10, rate_scale=2).build(seed=0)
    np.testing.assert_array_equal(workload.arrival_s, [0.5, 1.25])
    np.testing.assert_array_equal(workload.prompt_tokens, [3, 1])
    assert [ids.tolist() for ids in workload.prompt_ids] == [[7, 0, 7], [151935]]
    last = trace(path, start_s=50).build(seed=0)
    assert [ids.tolist() for ids in last.prompt_ids] == [[1, 2]]


def test_a_trace_of_lengths_has_no_prompts(path):
    assert trace(path).build(seed=0).prompt_ids is None


def test_a_prediction_keeps_the_prompts(tmp_path):
    path = tmp_path / "ids.jsonl"
    path.write_text(IDS)
    workload = trace(path, duration_s=100).build(seed=0)
    assert NoisyPrediction(0.5).apply(workload, seed=0).prompt_ids is workload.prompt_ids


def test_settings_explained_away_are_indeed_not_taken():
    assert "rate_rps" in Trace.WHY_NOT
    assert not Trace.WHY_NOT.keys() & inspect.signature(Trace).parameters.keys()


@pytest.mark.parametrize(("service", "num_requests"), [("conv", 301), ("code", 421)])
def test_a_minute_of_a_real_trace(data_dir, service, num_requests):
    file = data_dir / "azure_llm_2023" / f"AzureLLMInferenceTrace_{service}.csv"
    rows = read_trace(file)
    arrival_s = rows.arrival_s
    inside = (arrival_s >= 600) & (arrival_s < 660)
    workload = trace(file, start_s=600, rate_scale=2).build(seed=0)
    assert len(workload) == inside.sum() == num_requests
    np.testing.assert_array_equal(workload.prompt_tokens, rows.prompts[inside])
    np.testing.assert_array_equal(workload.output_tokens, rows.output_tokens[inside])
    np.testing.assert_allclose(workload.arrival_s, (arrival_s[inside] - 600) / 2, rtol=0, atol=1e-9)
