import json
import re

import numpy as np
import pytest

from emu.workload.traces.formats import TRACE_FORMATS
from emu.workload.traces.read import ReadSettings, read_trace
from emu.workload.workload import WorkloadError

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 23:59:59.5000000,4808,10\n2023-11-17 00:00:01.7500010,3180,8\n"
MOONCAKE = (
    '{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}\n'
    '{"timestamp": 3250, "input_length": 7322, "output_length": 490, "hash_ids": []}\n'
)
SPLITWISE_SIM = "request_id,arrival_timestamp,batch_size,prompt_size,token_size\n0,0.25,2,1339,420\n1,2.0,1,2144,97\n"
PLAIN = "arrival_timestamp,prompt_size,token_size\n0.25,1339,420\n2.0,2144,97\n"
TRACES = {"azure": AZURE, "mooncake": MOONCAKE, "plain": PLAIN, "splitwise_sim": SPLITWISE_SIM}
IDS = (
    '{"timestamp": 0, "prompt_token_ids": [1, 151935, 0], "output_length": 500, "input_length": 3}\n'
    '{"timestamp": 3.25, "prompt_token_ids": [7], "output_length": 490, "user": "x"}\n'
)
TEXT = (
    '{"timestamp": 0, "prompt": "Hello,\\nworld", "output_length": 500, "input_length": 1}\n'
    '{"timestamp": 3.25, "prompt": "¿Qué? \\u00e9", "output_length": 490}\n'
)
AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
PLAIN_HEADER = "arrival_timestamp,prompt_size,token_size"


def read(path, format_name):
    """(arrival_s, prompts, output_tokens) of the whole file."""
    rows = read_trace(path, settings=ReadSettings(format=format_name))
    return rows.arrival_s, rows.prompts, rows.output_tokens


@pytest.fixture
def trace(tmp_path):
    """Write a trace file and return its path."""

    def write(text: str):
        path = tmp_path / "trace"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


@pytest.mark.parametrize("format_name", ["named", "auto"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("azure", ([0, 2.250001], [4808, 3180], [10, 8])),
        ("mooncake", ([0, 3.25], [6758, 7322], [500, 490])),
        ("plain", ([0.25, 2.0], [1339, 2144], [420, 97])),
        ("splitwise_sim", ([0.25, 0.25, 2.0], [1339, 1339, 2144], [420, 420, 97])),
    ],
)
def test_each_format_is_read(trace, name, format_name, expected):
    columns = read(trace(TRACES[name]), name if format_name == "named" else "auto")
    assert [column.dtype for column in columns] == [np.float64, np.int64, np.int64]
    for column, values in zip(columns, expected, strict=True):
        np.testing.assert_array_equal(column, values)


@pytest.mark.parametrize("name", TRACES)
def test_windows_line_ends_blank_lines_and_a_byte_order_mark_do_not_matter(trace, name):
    expected = read(trace(TRACES[name]), "auto")
    text = "\ufeff" + TRACES[name].replace("\n", "\r\n") + "\r\n\r\n"
    np.testing.assert_array_equal(read(trace(text), "auto"), expected)


def test_azure_timestamps_may_carry_a_utc_offset(trace):
    text = f"{AZURE_HEADER}\n2024-05-10 00:00:00.009930+00:00,5,5\n2024-05-10 02:00:01.009930+02:00,5,5\n"
    np.testing.assert_array_equal(read(trace(text), "azure")[0], [0, 1])


@pytest.mark.parametrize("name", TRACE_FORMATS)
def test_every_example_in_an_error_is_itself_valid(trace, name):
    trace_format = TRACE_FORMATS[name]
    header = trace_format.first_line + "\n" if trace_format.has_header else ""
    assert len(read(trace(header + trace_format.example), name)[0]) == 1


@pytest.mark.parametrize("format_name", ["token_ids", "auto"])
def test_token_ids_are_read_as_they_are(trace, format_name):
    arrival_s, prompts, output_tokens = read(trace(IDS), format_name)
    assert ([ids.tolist() for ids in prompts], {ids.dtype for ids in prompts}) == ([[1, 151935, 0], [7]], {np.dtype(np.int32)})
    np.testing.assert_array_equal(arrival_s, [0, 3.25])
    np.testing.assert_array_equal(output_tokens, [500, 490])


@pytest.mark.parametrize("format_name", ["text", "auto"])
def test_text_is_read_as_it_is(trace, format_name):
    arrival_s, prompts, output_tokens = read(trace(TEXT), format_name)
    assert prompts == ["Hello,\nworld", "¿Qué? é"]
    np.testing.assert_array_equal(arrival_s, [0, 3.25])
    np.testing.assert_array_equal(output_tokens, [500, 490])


def test_a_row_with_text_and_token_ids_is_read_by_its_ids(trace):
    row = '{"timestamp": 0, "prompt": "Hi", "prompt_token_ids": [3, 4], "output_length": 1, "input_length": 2}'
    (ids,) = read(trace(row), "auto")[1]
    assert ids.tolist() == [3, 4]
    assert read(trace(row), "text")[1] == ["Hi"]
    np.testing.assert_array_equal(read(trace(row), "mooncake")[1], [2])


def row_of(**members):
    return json.dumps({"timestamp": 0, "output_length": 1} | members)


NO_IDS = "prompt_token_ids to be a list of ids from 0 to 2147483647, one at least"


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (dict(prompt_token_ids=[]), NO_IDS),
        (dict(prompt_token_ids=[0, -1]), NO_IDS),
        (dict(prompt_token_ids=[2**31]), NO_IDS),
        (dict(prompt_token_ids=[2**70]), NO_IDS),
        (dict(prompt_token_ids=[1.5]), NO_IDS),
        (dict(prompt_token_ids=[True]), NO_IDS),
        (dict(prompt_token_ids=[[1]]), NO_IDS),
        (dict(prompt_token_ids="12"), NO_IDS),
        (dict(prompt_token_ids=[1, 2], input_length=3), "input_length to be the number of its prompt_token_ids, 2"),
        (
            dict(prompt_token_ids=[1, 2], output_length=0),
            "output_length to be from 1 to 2147483647, or workload.zero_outputs=skip",
        ),
        (dict(prompt_token_ids=[1, 2], timestamp=-1), "timestamp to be a time >= 0"),
        (dict(prompt_token_ids=[1, 2], output_length="1"), f"a row like {TRACE_FORMATS['token_ids'].example}"),
        (dict(prompt_token_ids=[[1], [2, 3]]), NO_IDS),
        (dict(prompt_token_ids=[1, True]), NO_IDS),
        (dict(prompt=""), "prompt to be text, one character at least"),
        (dict(prompt=["Hi"]), "prompt to be text, one character at least"),
        (dict(prompt="\ud800"), f"a row like {TRACE_FORMATS['text'].example}"),
    ],
)
def test_a_wrong_prompt_is_one_line(trace, members, expected):
    path = trace(row_of(**members))
    with pytest.raises(
        WorkloadError, match=f"^{re.escape(f'workload.path={path}, line 1: ')}'.*'; {re.escape(f'expected {expected}')}$"
    ):
        read(path, "auto")


AZURE_ROW = "a row like 2023-11-16 18:17:03.9799600,4808,10"
MOONCAKE_ROW = 'a row like {"timestamp": 3000, "input_length": 6758, "output_length": 500}'
PLAIN_ROW = "a row like 0.0101,1339,420"


@pytest.mark.parametrize(
    ("text", "line_num", "expected"),
    [
        (f"{AZURE_HEADER}\nyesterday,1,1\n", 2, AZURE_ROW),
        (f"{AZURE_HEADER}\n2023-11-16 18:17:03,1,1\n2023-11-16 18:17:04,1\n", 3, AZURE_ROW),
        (f"{AZURE_HEADER}\n2023-11-16 18:17:03,1,1,1\n", 2, AZURE_ROW),
        (f"{AZURE_HEADER}\n2023-11-16 18:17:03,1.5,1\n", 2, AZURE_ROW),
        (f"{AZURE_HEADER}\n\n2023-11-16 18:17:03,,1\n", 3, AZURE_ROW),
        (
            f"{AZURE_HEADER}\n2023-11-16 18:17:03,1,1\n2023-11-16 18:17:02,1,1\n",
            3,
            "TIMESTAMP to be no earlier than in the row above, or workload.unsorted=sort",
        ),
        (f"{AZURE_HEADER}\n2023-11-16 18:17:03,0,1\n", 2, "ContextTokens to be from 1 to 2147483647"),
        (f"{AZURE_HEADER}\n2023-11-16 18:17:03,1,-1\n", 2, "GeneratedTokens to be from 1 to 2147483647"),
        (f"{PLAIN_HEADER}\nsoon,1,1\n", 2, PLAIN_ROW),
        (f"{PLAIN_HEADER}\nnan,1,1\n", 2, "arrival_timestamp to be a time >= 0"),
        (f"{PLAIN_HEADER}\n0,1,1\ninf,1,1\n", 3, "arrival_timestamp to be a time >= 0"),
        (f"{PLAIN_HEADER}\n-1,1,1\n", 2, "arrival_timestamp to be a time >= 0"),
        (f"{PLAIN_HEADER}\n0,1,99999999999999999999\n", 2, "token_size to be from 1 to 2147483647"),
        ('{"timestamp": 0, "input_length": 1}', 1, MOONCAKE_ROW.replace("a row like", "output_length, as in")),
        ('{"timestamp": 0, "input_length": 1.5, "output_length": 1}', 1, MOONCAKE_ROW),
        ('{"timestamp": 0, "input_length": "1", "output_length": 1}', 1, MOONCAKE_ROW),
        ('{"timestamp": null, "input_length": 1, "output_length": 1}', 1, MOONCAKE_ROW),
        ('{"timestamp": 0, "input_length": 1, "output_length": 1}\n[]\n', 2, MOONCAKE_ROW),
        ('{"timestamp": 0, "input_length": 1, "output_length": 1}\n{"time', 2, MOONCAKE_ROW),
        (
            '{"timestamp": 0, "input_length": 1, "output_length": 0}',
            1,
            "output_length to be from 1 to 2147483647, or workload.zero_outputs=skip",
        ),
    ],
)
def test_a_wrong_row_is_one_line_naming_file_line_and_what_is_expected(trace, text, line_num, expected):
    path = trace(text)
    row = text.split("\n")[line_num - 1]
    message = f"workload.path={path}, line {line_num}: {row!r}; expected {expected}"
    with pytest.raises(WorkloadError, match=f"^{re.escape(message)}$"):
        read(path, "auto")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("when,how_long", "expected arrival_timestamp,prompt_size,token_size (plain)"),
        ("0.5,100,20", "expected arrival_timestamp,prompt_size,token_size (plain)"),
        ("arrival_timestamp,prompt_size", "no column token_size; expected arrival_timestamp,prompt_size,token_size (plain)"),
        (
            "Timestamp,Model,Request tokens,Total tokens",
            "no column Response tokens; expected Timestamp,Request tokens,Response tokens (burstgpt)",
        ),
        (
            "timestamp,contexttokens,generatedtokens",
            "expected TIMESTAMP,ContextTokens,GeneratedTokens (azure)",
        ),
        (
            '{"timestamp": 1, "output_length": 2, "messages": []}',
            f"no member input_length; {MOONCAKE_ROW.replace('a row like', 'expected')} (mooncake)",
        ),
        ('{"x', f"{MOONCAKE_ROW.replace('a row like', 'expected')} (mooncake)"),
    ],
)
def test_an_unknown_first_line_names_the_nearest_format_alone(trace, line, problem):
    path = trace(f"{line}\n1,2\n")
    with pytest.raises(WorkloadError) as error:
        read(path, "auto")
    assert str(error.value) == f"workload.path={path}, line 1: {line!r}; {problem}"


def test_a_named_format_must_be_the_files_own(trace):
    path = trace(PLAIN)
    header = PLAIN.split("\n")[0]
    message = (
        f"workload.path={path}, line 1: {header!r}; no column TIMESTAMP or ContextTokens or GeneratedTokens; "
        "expected TIMESTAMP,ContextTokens,GeneratedTokens (azure)"
    )
    with pytest.raises(WorkloadError, match=f"^{re.escape(message)}$"):
        read(path, "azure")


def test_a_long_line_is_shown_cut(trace):
    with pytest.raises(WorkloadError, match=r"line 1: '\{x{76}\.\.\.'; expected"):
        read(trace("{" + "x" * 500), "auto")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "empty file; expected a trace"),
        ("\n \n", "empty file; expected a trace"),
        (f"{AZURE_HEADER}\n", "a header and no rows; expected at least one request"),
        (
            b"\x1f\x8b\x08\xff",
            "cannot be decompressed: Compressed file ended before the end-of-stream marker was reached; expected",
        ),
    ],
)
def test_a_file_without_requests_is_one_clear_line(trace, content, text):
    path = trace(content)
    with pytest.raises(WorkloadError, match=f"^{re.escape(f'workload.path={path}: {text}')}"):
        read(path, "auto")


def test_a_missing_file_and_a_directory_are_one_clear_line(tmp_path):
    missing = tmp_path / "none.csv"
    for path, reason in ((missing, "No such file or directory"), (tmp_path, "Is a directory")):
        message = f"workload.path={path}: {reason}; expected a trace file"
        with pytest.raises(WorkloadError, match=f"^{re.escape(message)}$"):
            read(path, "auto")


@pytest.mark.parametrize(
    ("file", "num_requests", "span_s", "prompt_sum", "output_sum"),
    [
        ("azure_llm_2023/AzureLLMInferenceTrace_conv.csv", 19_366, 3501.721937, 22_361_870, 4_088_665),
        ("azure_llm_2023/AzureLLMInferenceTrace_code.csv", 8_819, 3435.948056, 18_059_974, 245_896),
        ("mooncake/conversation_trace.jsonl", 12_031, 3536.999, 144_793_823, 4_122_048),
        ("splitwise_reference/rr_conv_70_2min.csv", 8_461, 119.99822054418755, None, None),
    ],
)
def test_real_traces_are_read_whole(data_dir, file, num_requests, span_s, prompt_sum, output_sum):
    arrival_s, prompt_tokens, output_tokens = read(data_dir / file, "auto")
    assert len(arrival_s) == num_requests
    assert arrival_s[-1] == pytest.approx(span_s, abs=1e-9)
    if prompt_sum is not None:
        assert (prompt_tokens.sum(), output_tokens.sum()) == (prompt_sum, output_sum)
