"""Files that are compressed, hostile or no files."""

import gzip
import hashlib
import os
import re
import tracemalloc

import pyarrow
import pytest

from emu.workload.trace import Trace
from emu.workload.traces import file as trace_file
from emu.workload.traces import lines, outside
from emu.workload.traces.read import ReadSettings, read_trace
from emu.workload.traces.window import Window
from emu.workload.workload import WorkloadError

HEADER = "arrival_timestamp,prompt_size,token_size\n"
TEXT = (HEADER + "".join(f"{row / 8},{row % 90 + 1},{row % 7 + 1}\n" for row in range(4000))).encode()
DATES = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2024-05-12 00:{row // 600:02}:{row // 10 % 60:02}.{row % 10}+00:00,{row + 1},1\n" for row in range(4000)
)
BATCHES = "request_id,arrival_timestamp,batch_size,prompt_size,token_size\n" + "".join(
    f"{row},{row / 9:.3f},{row % 3 + 1},5,6\n" for row in range(4000)
)


def zstd(data: bytes) -> bytes:
    return pyarrow.compress(data, codec="zstd", asbytes=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trace"


@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, zstd, lambda data: gzip.compress(data[:99]) + gzip.compress(data[99:])]
)
def test_a_file_is_decompressed_by_its_content(path, compress):
    path.write_bytes(compress(TEXT))
    rows = read_trace(path)
    assert (len(rows.arrival_s), rows.requests_in_file, rows.arrival_s[-1]) == (4000, 4000, 499.875)
    assert rows.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[: len(data) // 2], lambda data: data[:9] + b"\0\xff"]
)
def test_a_damaged_archive_is_one_line(path, compress, damage):
    path.write_bytes(damage(compress(TEXT)))
    with pytest.raises(WorkloadError, match=rf"^workload\.path={re.escape(str(path))}: cannot be decompressed: "):
        read_trace(path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"PK\x03\x04xl/", "a zip archive or a spreadsheet"), (b"PAR1xx", "Parquet"), (b"BZh9", "compressed by bzip2")],
)
def test_other_files_are_named(path, content, kind):
    path.write_bytes(content)
    text = f"workload.path={path}: is {kind}; expected text, plain or compressed by gzip or zstd"
    with pytest.raises(WorkloadError, match=f"^{re.escape(text)}$"):
        read_trace(path)


def test_only_regular_files_are_read(path):
    os.mkfifo(path)
    for special in (path, "/dev/zero", "/dev/null"):
        with pytest.raises(
            WorkloadError, match=f"^workload.path={re.escape(str(special))}: is no regular file; expected a trace file$"
        ):
            read_trace(special)


@pytest.mark.parametrize("start", ["", HEADER, '{"timestamp": 0, "input_length": 1, "output_length": 1}\n'])
def test_one_endless_line_is_refused_in_bounded_memory(path, start):
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(start.encode())
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(WorkloadError, match=f": line {1 + bool(start)} is longer than 16 MiB; expected a row a line$"):
        read_trace(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


def test_what_decompresses_without_end_is_refused(path, monkeypatch):
    monkeypatch.setattr(trace_file, "MAX_BYTES", 1 << 20)
    path.write_bytes(gzip.compress(TEXT + b" " * (2 << 20)))
    with pytest.raises(WorkloadError, match=r" GiB decompressed; expected a shorter trace$"):
        read_trace(path)


def test_json_nested_beyond_reason_is_a_bad_row(path):
    good = '{"timestamp": 0, "input_length": 1, "output_length": 1}\n'
    path.write_text(good + "[" * 100_000 + "\n" + '{"a":' * 100_000 + "\n")
    with pytest.raises(
        WorkloadError, match=r", line 2: '\[+\.\.\.'; expected a row like .*; line 3: .*; expected a row like .*$"
    ):
        read_trace(path)


@pytest.mark.parametrize("line", ["\x1c", "\x0b", "\x00", "\x85", "\u2028", "\xa0", "\ufeff"])
def test_a_line_of_one_odd_character_is_a_bad_row(path, line):
    path.write_text(f"{HEADER}0,1,1\n{line}\n1,1,1\n")
    with pytest.raises(
        WorkloadError, match=r", line 3: .*; expected (text without control characters|a row like 0\.0101,1339,420)$"
    ):
        read_trace(path)


def test_a_row_that_is_no_utf8_is_a_bad_row(path):
    path.write_bytes(HEADER.encode() + b"0,1,1\n1,\xff,1\n")
    with pytest.raises(WorkloadError, match=r", line 3: '1,�,1'; expected UTF-8 text$"):
        read_trace(path)


@pytest.mark.parametrize("value", ["true", '"12"', "null", "1.5", "[1]", "NaN", "1e400"])
def test_what_is_no_whole_number_is_a_bad_row(path, value):
    for member in ("timestamp", "input_length", "output_length"):
        members = {"timestamp": "0", "input_length": "1", "output_length": "1"} | {member: value}
        path.write_text("{" + ", ".join(f'"{name}": {value}' for name, value in members.items()) + "}")
        with pytest.raises(WorkloadError, match=r", line 1: |timestamp has fractions"):
            read_trace(path)


@pytest.mark.parametrize("value", ["1_0", "٣", "0x1F", "1e2", "+-1", "", " ", "true", "nan", '"1'])
def test_what_is_no_number_in_csv_is_a_bad_row(path, value):
    path.write_text(f"{HEADER}0,{value},1\n")
    with pytest.raises(WorkloadError, match=r", line 2: .*; expected a row like 0\.0101,1339,420$"):
        read_trace(path)


def test_aiperfs_sessions_and_texts_are_kept(path):
    path.write_text(
        '{"timestamp": 0, "session_id": "a", "input_length": 7, "output_length": 5}\n'
        '{"timestamp": 9.0, "session_id": "a", "delay": 250.5, "input_length": 8, "output_length": 5, "extra": []}\n'
    )
    rows = read_trace(path)
    assert rows.columns == {"session_id": ("a", "a"), "delay": (None, 250.5)}
    assert rows.unused_columns == ("delay", "extra", "session_id")
    path.write_text('{"timestamp": 3000, "session_id": "a", "text_input": "Hello", "output_length": 5}\n')
    rows = read_trace(path)
    assert (rows.format.name, rows.prompts, rows.arrival_s.tolist()) == ("mooncake_text", ["Hello"], [3])


def test_a_turn_without_a_time_is_refused(path):
    path.write_text(
        '{"timestamp": 0, "session_id": "a", "input_length": 7, "output_length": 5}\n'
        '{"delay": 250, "session_id": "a", "input_length": 8, "output_length": 5}\n'
    )
    with pytest.raises(
        WorkloadError, match=r", line 2: .*; expected timestamp: a row with delay alone waits for the answer before"
    ):
        read_trace(path)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.replace(b"\n", b"\r\n"),
        DATES.encode(),
        BATCHES.encode(),
        TEXT + b"499.9, 5 ,5.0\n500,5,5\n",
    ],
    ids=["plain", "windows", "dates", "batches", "odd"],
)
def test_hurrying_past_the_outside_changes_nothing(path, monkeypatch, text):
    path.write_bytes(text)
    monkeypatch.setattr(trace_file, "BLOCK_BYTES", 4096)
    for window in (Window(), Window(0, 30), Window(200, 0.5), Window(300, 20), Window(450)):
        slow = outcome(path, window)
        with monkeypatch.context() as patch:
            patch.setattr("emu.workload.traces.read.MIN_FILE_BYTES", 0)
            assert outcome(path, window) == slow


def test_what_is_wrong_outside_the_window_is_found(path, monkeypatch):
    monkeypatch.setattr(trace_file, "BLOCK_BYTES", 4096)
    monkeypatch.setattr("emu.workload.traces.read.MIN_FILE_BYTES", 0)
    rows = TEXT.decode().splitlines()
    for wrong in ("1,1,1", "400,0,1", "400,1,0x1", "400,1", "", "400,1,1\x00", '400,"1,1'):
        changed = [*rows[:3201], wrong, *rows[3201:]]
        path.write_text("\n".join(changed))
        if not wrong:
            assert read_trace(path, Window(0, 9)).requests_in_file == 4000
            continue
        with pytest.raises(WorkloadError, match=r", line 3202: "):
            read_trace(path, Window(0, 9))


def test_the_hurry_is_taken(path, monkeypatch):
    """Else the two tests above compare the slow way to itself."""
    monkeypatch.setattr("emu.workload.traces.read.MIN_FILE_BYTES", 0)
    monkeypatch.setattr(trace_file, "BLOCK_BYTES", 4096)
    seen = []
    inside = outside.Outside.rows_inside
    monkeypatch.setattr(outside.Outside, "rows_inside", lambda self, block: seen.append(inside(self, block)) or seen[-1])
    path.write_bytes(TEXT)
    assert read_trace(path, Window(300, 1)).requests_in_file == 4000
    assert sum(found.num_requests_outside for found in seen if found) > 2000


def outcome(path, window):
    try:
        rows = read_trace(path, window, ReadSettings())
    except WorkloadError as error:
        return str(error)
    return (rows.arrival_s.tolist(), rows.prompts.tolist(), rows.requests_in_file, rows.first_s, rows.last_s, rows.sha256)


def test_memory_does_not_grow_with_the_file(path):
    """A hundred thousand rows, of which a minute is kept."""
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write(HEADER)
        for row in range(100_000):
            file.write(f"{row / 10},1000,100\n")
    tracemalloc.start()
    assert len(read_trace(path, Window(0, 60)).arrival_s) == 600
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    assert lines.MAX_LINE_BYTES == 16 << 20


def test_names_of_columns_can_be_printed_whatever_they_are(path):
    odd = r'{"timestamp": 0, "input_length": 1, "output_length": 1, "\u001b[31m": 1, "\ud800": 1, "' + "x" * 99 + '": 1}\n'
    path.write_text(odd + odd.replace("x" * 9, "y"))
    names = read_trace(path).unused_columns
    assert names == (r"\ud800", r"\x1b[31m", "x" * 37 + "...", "y" * 11)


def test_a_file_with_ever_new_columns_is_told_in_bounds(path):
    path.write_text(
        "".join(f'{{"timestamp": 0, "input_length": 1, "output_length": 1, "c{row:05}": 1}}\n' for row in range(3000))
    )
    workload = Trace(str(path), "auto", "", "auto", float("inf"), 1, "auto", "refuse", "refuse").build(seed=0)
    assert len(workload.origin.unused_columns) == 1000
    assert "columns not used: c00000, c00001, " in workload.origin.line()
    assert "c00009 and 990 more; mooncake" in workload.origin.line()
