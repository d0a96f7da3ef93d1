"""What times in a trace mean: the unit, dates, the exact cut of a window."""

import json
import re
from decimal import Decimal

import numpy as np
import pytest

from emu.workload.traces.read import ReadSettings, read_trace
from emu.workload.traces.times import DateReader
from emu.workload.traces.window import Window
from emu.workload.workload import WorkloadError

PLAIN = "arrival_timestamp,prompt_size,token_size"


@pytest.fixture
def plain(tmp_path):
    """Write a CSV of these times in the format that fixes no unit."""

    def write(*times):
        path = tmp_path / "t.csv"
        path.write_text("\n".join([PLAIN, *(f"{time},10,5" for time in times)]))
        return path

    return write


@pytest.fixture
def mooncake(tmp_path):
    """Write JSON lines with these timestamps, verbatim."""

    def write(*times, **members):
        path = tmp_path / "t.jsonl"
        rest = json.dumps({"input_length": 10, "output_length": 5} | members)[1:]
        path.write_text("\n".join(f'{{"timestamp": {time}, {rest}' for time in times))
        return path

    return write


def read(path, start_s=0.0, duration_s=float("inf"), **settings):
    return read_trace(path, Window(start_s, duration_s), ReadSettings(**settings))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_dates_in_any_unit_count_from_the_first_row(plain, unit):
    per_s = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    times = [f"{(Decimal('1787000000.25') + Decimal(step) / 4) * per_s:f}" for step in range(3)]
    rows = read(plain(*times))
    assert (rows.arrival_s.tolist(), rows.time_unit) == ([0, 0.25, 0.5], unit)


@pytest.mark.parametrize(
    ("unit", "times"), [("s", (0, 1, 2)), ("ms", (0, 500, 1000)), ("us", (0, 2_000_000)), ("ns", (0, 2_000_000_000))]
)
def test_the_unit_asked_for_is_used(plain, mooncake, unit, times):
    per_s = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    for path in (plain(*times), mooncake(*times)):
        rows = read(path, time_unit=unit)
        assert rows.arrival_s.tolist() == [time / per_s for time in times]
        assert rows.time_unit == unit


UNLIKELY = "arrival_timestamp grows by {} from row to row at the median, which is unlikely in s"
CHOICE = "expected workload.time_unit=s, ms, us or ns"


@pytest.mark.parametrize(
    ("times", "gap"),
    [((0, 61, 122), "61"), ((0, 500, 900), "450"), ((0, "0.000009", "0.000018"), "9e-06"), ((5, 5, 5, 105), "100")],
)
def test_gaps_that_no_service_has_in_seconds_are_refused(plain, times, gap):
    path = plain(*times)
    with pytest.raises(WorkloadError, match=f"^{re.escape(f'workload.path={path}: {UNLIKELY.format(gap)}; {CHOICE}')}$"):
        read(path)


@pytest.mark.parametrize("times", [(0, 60, 120), (0, "0.00001"), (7, 7, 7), (7,)])
def test_gaps_that_a_service_may_have_are_seconds(plain, times):
    assert read(plain(*times)).arrival_s.tolist() == [float(time) for time in times]


def test_fractions_in_milliseconds_are_refused_wherever_they_are(mooncake):
    path = mooncake(0, 61.114, 124.5)
    with pytest.raises(WorkloadError, match=rf": timestamp has fractions, so that ms is not certain; {re.escape(CHOICE)}$"):
        read(path)
    path = mooncake(*range(2000), 2000.5)
    expected = "timestamp to be a whole number of ms, or else workload.time_unit=s, ms, us or ns"
    with pytest.raises(WorkloadError, match=rf", line 2001: .*; expected {re.escape(expected)}$"):
        read(path)
    assert read(path, time_unit="ms").arrival_s[-1] == 2.0005


def test_whole_floats_are_milliseconds(mooncake):
    assert read(mooncake("0.0", "1500.0")).arrival_s.tolist() == [0, 1.5]


def test_a_chat_with_turns_is_in_seconds(mooncake):
    rows = read(mooncake(0, 61, 124.5, chat_id=1, turn=1))
    assert (rows.format.name, rows.arrival_s.tolist()) == ("qwen_bailian", [0, 61, 124.5])


def test_a_date_in_another_unit_than_the_formats_is_refused(mooncake):
    path = mooncake(1787000000, 1787000001)
    problem = "timestamp 1787000000 is a date in s, but this format has ms"
    with pytest.raises(WorkloadError, match=f"^{re.escape(f'workload.path={path}: {problem}; {CHOICE}')}$"):
        read(path)
    assert read(path, time_unit="s").arrival_s.tolist() == [0, 1]


def test_a_unit_that_the_format_fixes_cannot_be_asked_otherwise(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,1,1\n")
    with pytest.raises(
        WorkloadError, match=r"^workload\.time_unit=ms: the times of .* are in s by its format; expected workload"
    ):
        read(path, time_unit="ms")
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1,1\n")
    with pytest.raises(WorkloadError, match=r"^workload\.time_unit=s: the times of .* are dates; expected workload"):
        read(path, time_unit="s")


def test_digits_that_a_spreadsheet_dropped_are_refused(plain):
    with pytest.raises(WorkloadError, match=r": arrival_timestamp 1\.787E\+12 resolves only 1e\+06 s; expected all digits"):
        read(plain("1.787E+12", "1.787E+12"))


def test_a_span_too_long_for_microseconds_is_refused(plain):
    with pytest.raises(WorkloadError, match=r": arrival_timestamp spans 1e\+10 s, at which times resolve 1\.9e-06 s; expected"):
        read(plain(0, "1e10"), time_unit="s")


@pytest.mark.parametrize(
    ("text", "seconds_of_the_day"),
    [
        ("2024-05-12 00:00:00", "0"),
        ("2024-05-12", "0"),
        ("2024-05-12T00:00:01Z", "1"),
        ("2024-05-12 01:00:01+01:00", "1"),
        ("2024-05-12 01:30:01.5+0130", "1.5"),
        ("2024-05-11 23:00:00.000000001-01", "1E-9"),
        ("2024-05-12 00:00:00.1234567", "0.1234567"),
    ],
)
def test_dates_keep_every_digit_and_honour_their_zone(text, seconds_of_the_day):
    read_date = DateReader()
    assert read_date("t", text) - read_date("t", "2024-05-12 00:00") == Decimal(seconds_of_the_day)


@pytest.mark.parametrize(
    "text", ["5/12/2024 0:00", "2024-13-01", "2024-05-12 25:00", "2024-05-12 00:00+24:00", "20240512", "now", ""]
)
def test_what_is_no_date_is_refused(text):
    with pytest.raises(ValueError):
        DateReader()("t", text)


def test_windows_cut_in_the_files_own_digits(plain):
    """In sums of doubles, 0.1 + 0.2 is after 0.3, and 1787000000.3 - 1787000000 is before it."""
    for start in (0, 1787000000):
        path = plain(*(f"{start}.{tenth}" for tenth in range(10)))
        found = [read(path, tenth / 10, 0.1).arrival_s.tolist() for tenth in range(10)]
        assert found == [[0]] * 10
        assert len(read(path, 0.1, 0.2).arrival_s) == 2


def test_a_digit_beyond_doubles_decides(plain):
    path = plain("1", "1.99999999999999999999999999", "2")
    assert len(read(path, 1, 1).arrival_s) == 2


def test_sorting_counts_dates_from_the_earliest(plain):
    rows = read(plain("1787000002", "1787000000.5", "1787000003"), unsorted="sort")
    np.testing.assert_array_equal(rows.arrival_s, [0, 1.5, 2.5])
    assert rows.reordered == 1


def test_bad_rows_are_the_first_three_and_how_many_more(plain):
    path = plain(0, "x", 1, 0.5, "1\x01", "", 2, "-3")
    with pytest.raises(WorkloadError) as error:
        read(path)
    assert str(error.value) == (
        f"workload.path={path}, line 3: 'x,10,5'; expected a row like 0.0101,1339,420; "
        "line 5: '0.5,10,5'; expected arrival_timestamp to be no earlier than in the row above, or workload.unsorted=sort; "
        "line 6: '1\\x01,10,5'; expected text without control characters; and 2 more bad rows"
    )
