"""Small files that were hard to read, in cases/, each with its right outcome."""

import re
from pathlib import Path

import numpy as np
import pytest

from emu.workload.trace import Trace
from emu.workload.workload import WorkloadError

CASES = Path(__file__).parent / "cases"


def trace(path, **settings):
    defaults = dict(format="auto", tokenizer="", start_s="auto", duration_s=float("inf"), rate_scale=1)
    defaults |= dict(time_unit="auto", zero_outputs="refuse", unsorted="refuse")
    return Trace(str(CASES / path), **(defaults | settings)).build(seed=0)


@pytest.mark.parametrize(
    ("path", "settings", "arrival_s", "line"),
    [
        (
            "01_qwen_bailian_seconds/trace.jsonl",
            {},
            [0, 61.114, 124.5],
            "trace: 3 of 3 requests, 0 to 124 s of 124 s; columns not used: chat_id, hash_ids, parent_chat_id, turn, type; "
            "qwen_bailian, times in s; 4.6 % of prompt tokens repeat a prefix",
        ),
        (
            "02_azure_2024/t.csv",
            {},
            [0, 0.002413, 0.996836, 86399.996835, 86399.996837],
            "trace: 5 of 5 requests, 0 to 86,400 s of 86,400 s; azure, times are dates",
        ),
        ("02_azure_2024/z.csv", {}, [0, 0.5], "trace: 2 of 2 requests, 0 to 0.5 s of 0.5 s; azure, times are dates"),
        ("02_azure_2024/tz.csv", {}, [0, 0.5], "trace: 2 of 2 requests, 0 to 0.5 s of 0.5 s; azure, times are dates"),
        ("02_azure_2024/ticks.csv", {}, [0, 5e-7], "trace: 2 of 2 requests, 0 to 5e-07 s of 5e-07 s; azure, times are dates"),
        (
            "02_azure_2024/lmm.csv",
            {},
            [0, 1],
            "trace: 2 of 2 requests, 0 to 1 s of 1 s; columns not used: NumImages; azure, times are dates",
        ),
        (
            "02_azure_2024/zero.csv",
            {"zero_outputs": "skip"},
            [0.002413],
            "trace: 1 of 1 requests, 0 to 0.002413 s of 0.002413 s; azure, times are dates; 1 row without output skipped",
        ),
        (
            "03_burstgpt/t.csv",
            {"zero_outputs": "skip"},
            [5, 45],
            "trace: 2 of 2 requests, 0 to 118 s of 118 s; columns not used: Log Type, Model, Total tokens; "
            "burstgpt, times in s; 1 row without output skipped",
        ),
        (
            "04_mooncake_hash/head.jsonl",
            {"duration_s": 0.041},
            [0, 0, 0.04],
            "trace: 3 of 8 requests, 0 to 0.041 s of 0.937 s; columns not used: hash_ids; mooncake, times in ms; "
            "0.0 % of prompt tokens repeat a prefix",
        ),
        ("05_vidur/t.csv", {}, [0, 4.314579], "trace: 2 of 2 requests, 0 to 4.315 s of 4.315 s; vidur, times in s"),
        (
            "11_splitwise_sim/t.csv",
            {},
            [1, 3, 4, 4],
            "trace: 4 of 4 requests, 0 to 4 s of 4 s; columns not used: application_id, request_id, request_type; "
            "splitwise_sim, times in s",
        ),
        (
            "13_window_edges/t.csv",
            {"start_s": 0.1, "duration_s": 0.2},
            [0, 0.1],
            "trace: 2 of 10 requests, 0.1 to 0.3 s of 0.9 s; azure, times are dates",
        ),
        ("14_gap_then_load/t.csv", {}, [30, 31], "trace: 2 of 2 requests, 0 to 31 s of 31 s; plain, times in s"),
        ("23_epoch_timestamps/t.csv", {}, [0, 0.5], "trace: 2 of 2 requests, 0 to 0.5 s of 0.5 s; plain, times in s"),
        (
            "23_epoch_timestamps/t.jsonl",
            {},
            [0, 0.5],
            "trace: 2 of 2 requests, 0 to 0.5 s of 0.5 s; columns not used: hash_ids; mooncake, times in ms; "
            "42.7 % of prompt tokens repeat a prefix",
        ),
        (
            "epoch.csv",
            {"start_s": 49},
            [0, 0.5],
            "trace: 2 of 100 requests, 49 to 49.5 s of 49.5 s; plain, times in s",
        ),
        (
            "ms.csv",
            {"time_unit": "ms", "duration_s": 1},
            [0, 0.5],
            "trace: 2 of 100 requests, 0 to 1 s of 49.5 s; plain, times in ms",
        ),
        (
            "32_gz/AzureLMM.csv.gz",
            {},
            [0, 1],
            "trace: 2 of 2 requests, 0 to 1 s of 1 s; columns not used: NumImages; azure, times are dates",
        ),
        ("34_float_lengths/t.csv", {}, [0], "trace: 1 of 1 requests, 0 to 0 s of 0 s; plain, times in s"),
        ("34_float_lengths/t.jsonl", {}, [0], "trace: 1 of 1 requests, 0 to 0 s of 0 s; mooncake, times in ms"),
        (
            "35_unsorted/t.jsonl",
            {"unsorted": "sort"},
            [0.05, 0.1],
            "trace: 2 of 2 requests, 0 to 0.1 s of 0.1 s; mooncake, times in ms; sorted: 1 row stood after a later one",
        ),
    ],
)
def test_arrivals_and_the_line_about_them(path, settings, arrival_s, line):
    workload = trace(path, **settings)
    np.testing.assert_array_equal(workload.arrival_s, arrival_s)
    assert workload.origin.line() == line


def test_all_of_ten_minutes_is_the_default():
    assert len(trace("35_unsorted/ten_minutes.csv")) == 600


def test_lengths_written_as_floats_are_whole_numbers():
    for name in ("t.csv", "t.jsonl"):
        workload = trace(f"34_float_lengths/{name}")
        assert (workload.prompt_tokens.tolist(), workload.output_tokens.tolist()) == ([374], [44])


def test_sessions_and_hashes_are_kept():
    columns = trace("01_qwen_bailian_seconds/trace.jsonl").columns
    assert columns["chat_id"] == (1, 2, 3)
    assert columns["parent_chat_id"] == (-1, -1, 1)
    assert columns["turn"] == (1, 1, 2)
    assert [hashes.tolist() for hashes in columns["hash_ids"]] == [[0, 1, 2], [0, 1, 9], [0, 1, 2, 12]]


def test_windows_of_a_tenth_share_no_row_and_lose_none():
    found = []
    for tenth in range(10):
        workload = trace("13_window_edges/t.csv", start_s=tenth / 10, duration_s=0.1)
        found.append(len(workload))
        assert workload.arrival_s.tolist() == [0]
    assert found == [1] * 10


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("02_azure_2024/excel.csv", ", line 2: '5/12/2024 0:00,10,5'; expected a row like 2023-11-16 18:17:03.9799600,4808,10"),
        (
            "02_azure_2024/zero.csv",
            ", line 2: '2024-05-12 00:00:00.003164+00:00,1452,0'; "
            "expected GeneratedTokens to be from 1 to 2147483647, or workload.zero_outputs=skip",
        ),
        (
            "03_burstgpt/t.csv",
            ", line 4: '118,GPT-4,417,0,417,Conversation log'; "
            "expected Response tokens to be from 1 to 2147483647, or workload.zero_outputs=skip",
        ),
        (
            "05_vidur/lengths.csv",
            ", line 1: 'num_prefill_tokens,num_decode_tokens,pd_ratio': no column arrived_at: lengths without arrivals; "
            "expected a trace with times, or workload=azure_conv or fixed, which draw arrivals at workload.rate_rps",
        ),
        (
            "35_unsorted/t.jsonl",
            """, line 2: '{"timestamp": 50, "input_length": 374, "output_length": 4}'; """
            "expected timestamp to be no earlier than in the row above, or workload.unsorted=sort",
        ),
        (
            "missingcol.csv",
            ", line 1: 'arrival_timestamp,prompt_size'; no column token_size; "
            "expected arrival_timestamp,prompt_size,token_size (plain)",
        ),
        (
            "ms.csv",
            ": arrival_timestamp grows by 500 from row to row at the median, which is unlikely in s; "
            "expected workload.time_unit=s, ms, us or ns",
        ),
        (
            "zeroout.csv",
            ", line 2: '0,100,0'; expected token_size to be from 1 to 2147483647, or workload.zero_outputs=skip",
        ),
    ],
)
def test_what_is_refused_is_one_line(path, problem):
    with pytest.raises(WorkloadError, match=f"^{re.escape(f'workload.path={CASES / path}{problem}')}$"):
        trace(path)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (
            "azure_llm_2023/AzureLLMInferenceTrace_conv.csv",
            "trace: 301 of 19,366 requests, 600 to 660 s of 3,502 s; azure, times are dates",
        ),
        (
            "azure_llm_2023/AzureLLMInferenceTrace_code.csv",
            "trace: 421 of 8,819 requests, 600 to 660 s of 3,436 s; azure, times are dates",
        ),
        (
            "mooncake/conversation_trace.jsonl",
            "trace: 218 of 12,031 requests, 600 to 660 s of 3,537 s; columns not used: hash_ids; mooncake, times in ms; "
            "8.4 % of prompt tokens repeat a prefix",
        ),
    ],
)
def test_the_lines_of_real_traces(data_dir, path, line):
    assert trace(data_dir / path, start_s=600, duration_s=60).origin.line() == line


def test_the_first_minute_of_mooncake(data_dir):
    line = trace(data_dir / "mooncake/conversation_trace.jsonl", duration_s=60).origin.line()
    assert line.startswith("trace: 162 of 12,031 requests, 0 to 60 s of 3,537 s; columns not used: hash_ids")
