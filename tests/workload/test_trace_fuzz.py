"""Trace files with random damage: one clear line, or every row accounted for."""

import gzip
import json
import os
import random

import pyarrow

from emu.workload.trace import Trace
from emu.workload.traces import file as trace_file
from emu.workload.workload import WorkloadError

NUM_CASES = int(os.environ.get("EMU_FUZZ_CASES", "600"))
ODD_VALUES = [
    "",
    " ",
    "-1",
    "0",
    "1e3",
    "1e400",
    "nan",
    "inf",
    "true",
    '"12"',
    "1_0",
    "0x1F",
    "٣",
    "9" * 25,
    "9" * 5000,
    "1.5",
    "374.0",
]
ODD_VALUES += [
    "-0.0",
    "1787000000",
    "1787000000000",
    "2024-05-12 00:00:00+00:00",
    "5/12/2024 0:00",
    "[]",
    "{}",
    "null",
    "\ud7ff",
    "=1+1",
]
ODD_LINES = [
    "",
    " ",
    "\t",
    "\x1c",
    "\x00",
    "\x85",
    "\ufeff",
    ",",
    ",,",
    "#",
    "[" * 2000,
    '"',
    '"a\n',
    "{}",
    "[]",
    "null",
    "\r",
    "0,1,1",
]
SETTINGS = {
    "format": ["auto"] * 20 + ["plain", "mooncake", "azure", "splitwise_sim"],
    "time_unit": ["auto"] * 12 + ["s", "ms", "ns"],
    "zero_outputs": ["refuse", "skip"],
    "unsorted": ["refuse", "sort"],
    "start_s": ["auto", "auto", 0, 0.3, 1.5],
    "duration_s": [float("inf"), float("inf"), 1, 3],
}


def csv_rows(draw: random.Random, header: str) -> list[str]:
    time, rows = 0.0, [header]
    for _ in range(draw.randrange(1, 12)):
        time += draw.choice([0, 0.1, 0.25, 1])
        values = {"batch_size": draw.randrange(1, 3), "TIMESTAMP": f"2024-05-12 00:00:{time:09.6f}"}
        values |= dict.fromkeys(("arrival_timestamp", "arrived_at", "Timestamp"), round(time, 3))
        rows.append(",".join(str(values.get(name, draw.randrange(1, 900))) for name in header.split(",")))
    return rows


def json_rows(draw: random.Random, members: dict) -> list[str]:
    time, rows = 0, []
    for _ in range(draw.randrange(1, 12)):
        time += draw.choice([0, 100, 250, 1000])
        rows.append(json.dumps({"timestamp": time, "output_length": draw.randrange(1, 99)} | members))
    return rows


KINDS = [
    lambda draw: csv_rows(draw, "TIMESTAMP,ContextTokens,GeneratedTokens"),
    lambda draw: csv_rows(draw, "arrival_timestamp,prompt_size,token_size"),
    lambda draw: csv_rows(draw, "request_id,arrival_timestamp,batch_size,prompt_size,token_size"),
    lambda draw: csv_rows(draw, "arrived_at,num_prefill_tokens,num_decode_tokens"),
    lambda draw: csv_rows(draw, "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"),
    lambda draw: json_rows(draw, {"input_length": 700, "hash_ids": [1, 2]}),
    lambda draw: json_rows(draw, {"input_length": 50, "chat_id": 7, "turn": 1, "hash_ids": [3, 3]}),
    lambda draw: json_rows(draw, {"prompt_token_ids": [5, 6], "input_length": 2}),
    lambda draw: json_rows(draw, {"input_length": 9, "session_id": "a", "delay": 5}),
]


def damage(draw: random.Random, rows: list[str]) -> list[str]:
    """The rows with up to three changes: of a value, a line, a character, or the order."""
    rows = list(rows)
    for _ in range(draw.choice([0, 1, 1, 2, 3])):
        at = draw.randrange(len(rows))
        row = rows[at]
        kind = draw.randrange(7)
        if kind == 0 and row.startswith("{"):
            try:
                members = json.loads(row)
            except ValueError:
                continue
            name = draw.choice([*members, "extra"])
            odd = draw.choice(ODD_VALUES)
            texts = {key: json.dumps(value) for key, value in members.items()} | {name: odd}
            rows[at] = "{" + ", ".join(f'"{key}": {text}' for key, text in texts.items()) + "}"
        elif kind == 0:
            values = row.split(",")
            values[draw.randrange(len(values))] = draw.choice(ODD_VALUES)
            rows[at] = ",".join(values)
        elif kind == 1:
            rows.insert(at, draw.choice(ODD_LINES))
        elif kind == 2:
            position = draw.randrange(len(row) + 1)
            rows[at] = row[:position] + draw.choice("\x00\x0b\x1c\"',;{}[]\\\t é0x9.-e") + row[position + draw.randrange(2) :]
        elif kind == 3:
            rows[at] = row[: draw.randrange(len(row) + 1)]
        elif kind == 4:
            other = draw.randrange(len(rows))
            rows[at], rows[other] = rows[other], row
        elif kind == 5:
            rows.insert(at, row)
        elif len(rows) > 1:
            del rows[at]
    return rows


def stored(draw: random.Random, rows: list[str]) -> bytes:
    data = draw.choice(["\n", "\n", "\r\n"]).join(rows).encode() + draw.choice([b"", b"\n", b"\n\n"])
    kind = draw.randrange(8)
    if kind == 0:
        data = gzip.compress(data)
    elif kind == 1:
        data = pyarrow.compress(data, codec="zstd", asbytes=True)
    elif kind == 2:
        data = b"\xef\xbb\xbf" + data
    if draw.random() < 0.1 and data:
        position = draw.randrange(len(data))
        data = data[:position] + draw.choice([b"", bytes([draw.randrange(256)])]) + data[position + draw.randrange(2) :]
    return data


def test_a_damaged_trace_is_one_line_or_loses_no_row(tmp_path, monkeypatch):
    """Read in one block, and in small ones with the rows outside the window hurried past: the same."""
    monkeypatch.setattr("emu.workload.traces.read.NUM_HEAD_ROWS", 2)
    num_read = num_refused = 0
    for seed in range(NUM_CASES):
        draw = random.Random(seed)
        rows = damage(draw, draw.choice(KINDS)(draw))
        path = tmp_path / "trace"
        path.write_bytes(stored(draw, rows))
        settings = {name: draw.choice(values) for name, values in SETTINGS.items()}
        outcomes = []
        for least_bytes, block_bytes in ((1 << 40, 1 << 20), (0, draw.choice([16, 64, 200]))):
            monkeypatch.setattr("emu.workload.traces.read.MIN_FILE_BYTES", least_bytes)
            monkeypatch.setattr(trace_file, "BLOCK_BYTES", block_bytes)
            try:
                workload = Trace(str(path), tokenizer="", rate_scale=1, **settings).build(seed=0)
            except WorkloadError as error:
                assert "\n" not in str(error) and len(str(error)) < 1500, seed
                assert str(error).isprintable(), (seed, str(error))
                outcomes.append(str(error))
                num_refused += 1
            else:
                origin = workload.origin
                outcomes.append((workload.arrival_s.tolist(), workload.prompt_tokens.tolist(), origin))
                num_read += 1
                if origin.format != "splitwise_sim" and path.read_bytes()[:2] not in (b"\x1f\x8b", b"\x28\xb5"):
                    lines = [
                        line for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip(b" \t\r")
                    ]
                    assert origin.requests_in_file + origin.skipped == len(lines) - (not lines[0].lstrip().startswith(b"{")), (
                        seed
                    )
                assert 1 <= origin.requests == len(workload) <= origin.requests_in_file
        if not any("cannot be decompressed" in outcome for outcome in outcomes):  # else how much was read first differs
            assert outcomes[0] == outcomes[1], seed
    assert min(num_read, num_refused) > NUM_CASES / 3, "the damage must be neither none nor all"
