"""The formats of public traces, and which of them a file has."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from emu.workload.traces.csv_rows import CsvFormat, twice
from emu.workload.traces.json_rows import JsonLinesFormat, prompt_text, token_ids
from emu.workload.traces.row import whole_json
from emu.workload.traces.times import FixedUnit
from emu.workload.workload import WorkloadError

TraceFormat = CsvFormat | JsonLinesFormat
SECONDS = FixedUnit("s")
SESSION = ("session_id", "delay", "turn", "hash_ids", "text_input")

# In the order in which a file is tried: those that demand most first.
FORMATS: tuple[TraceFormat, ...] = (
    # Azure LLM inference datasets 2023 and 2024 (AzurePublicDataset): dates to 100 ns; 2024 with a zone; LMM with NumImages.
    CsvFormat(
        "azure",
        ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
        "2023-11-16 18:17:03.9799600,4808,10",
        unit=FixedUnit("date"),
    ),
    # BurstGPT (HPMLL/BurstGPT): seconds from the trace's start; a failed request has no response tokens.
    CsvFormat("burstgpt", ("Timestamp", "Request tokens", "Response tokens"), "5,472,18", unit=SECONDS),
    # Vidur (microsoft/vidur), its processed traces: seconds.
    CsvFormat("vidur", ("arrived_at", "num_prefill_tokens", "num_decode_tokens"), "4.314579,396,109", unit=SECONDS),
    # SplitwiseSim's generated traces: seconds; `batch_size` requests at that time.
    CsvFormat(
        "splitwise_sim",
        ("arrival_timestamp", "prompt_size", "token_size"),
        "0.0101,1339,420,1",
        unit=SECONDS,
        count_field="batch_size",
    ),
    # Anyone's own: the unit is whatever they chose.
    CsvFormat("plain", ("arrival_timestamp", "prompt_size", "token_size"), "0.0101,1339,420", unit=None),
    # Prompts in the terms of vLLM's completions: token ids, or text for the checkpoint's tokenizer; seconds from the start.
    JsonLinesFormat(
        "token_ids",
        ("timestamp", "prompt_token_ids", "output_length"),
        '{"timestamp": 1.5, "prompt_token_ids": [1, 5, 7], "output_length": 20}',
        unit=SECONDS,
        read_prompt=token_ids,
        marks=("prompt_token_ids",),
        length_field="input_length",
    ),
    JsonLinesFormat(
        "text",
        ("timestamp", "prompt", "output_length"),
        '{"timestamp": 1.5, "prompt": "Hello", "output_length": 20}',
        unit=SECONDS,
        read_prompt=prompt_text,
        marks=("prompt",),
    ),
    # Qwen-Bailian (alibaba-edu/qwen-bailian-usagetraces-anon): seconds; a hash for each 16 tokens.
    JsonLinesFormat(
        "qwen_bailian",
        ("timestamp", "input_length", "output_length"),
        '{"chat_id": 1, "turn": 1, "timestamp": 61.114, "input_length": 521, "output_length": 32}',
        unit=SECONDS,
        read_prompt=whole_json,
        marks=("chat_id", "turn", "input_length"),
        kept=("chat_id", "parent_chat_id", "turn", "hash_ids"),
        block_tokens=16,
    ),
    # Mooncake's FAST25 release, and vLLM's and aiperf's dialect of it: milliseconds; a hash for each 512 tokens.
    JsonLinesFormat(
        "mooncake",
        ("timestamp", "input_length", "output_length"),
        '{"timestamp": 3000, "input_length": 6758, "output_length": 500}',
        unit=FixedUnit("ms", needs_whole=True),
        read_prompt=whole_json,
        marks=("input_length",),
        kept=SESSION,
        block_tokens=512,
    ),
    JsonLinesFormat(
        "mooncake_text",
        ("timestamp", "text_input", "output_length"),
        '{"timestamp": 3000, "text_input": "Hello", "output_length": 20}',
        unit=FixedUnit("ms", needs_whole=True),
        read_prompt=prompt_text,
        marks=("text_input",),
        kept=tuple(name for name in SESSION if name != "text_input"),
        block_tokens=512,
    ),
)
TRACE_FORMATS: Mapping[str, TraceFormat] = MappingProxyType({trace_format.name: trace_format for trace_format in FORMATS})
USUAL = ("plain", "mooncake")  # named where several are as near
LENGTHS_ALONE = ("num_prefill_tokens", "num_decode_tokens")


def recognise(path: Path, format_name: str, line_num: int, first_line: str) -> TraceFormat:
    """The format of the file whose first line that is not blank this is; `format_name` is a key of TRACE_FORMATS, or `auto`.

    Raises WorkloadError: what is missing of the nearest format.
    """
    allowed = FORMATS if format_name == "auto" else (TRACE_FORMATS[format_name],)
    place = f"workload.path={path}, line {line_num}: {shown(first_line)}"
    for trace_format in allowed:
        names = trace_format.names_in(first_line)
        if _required(trace_format) <= set(names):
            if (again := twice(names)) in trace_format.used:
                raise WorkloadError(f"{place}: column {again} twice; expected each once")
            return trace_format
    nearest = max(allowed, key=lambda trace_format: (_likeness(trace_format, first_line), trace_format.name in USUAL))
    found = set(nearest.names_in(first_line))
    if set(LENGTHS_ALONE) <= found:
        raise WorkloadError(
            f"{place}: no column arrived_at: lengths without arrivals; expected a trace with times, "
            "or workload=azure_conv or fixed, which draw arrivals at workload.rate_rps"
        )
    is_near = format_name != "auto" or found & nearest.used
    missing = [field for field in nearest.used_in_order if field not in found] if is_near else []
    named = f"no {'column' if nearest.has_header else 'member'} {' or '.join(missing)}; " if missing else ""
    raise WorkloadError(f"{place}; {named}expected {nearest.first_line} ({nearest.name})")


def shown(line: str) -> str:
    """A line as an error shows it: quoted, and cut where it is long."""
    line = line.rstrip("\n")
    return repr(line if len(line) <= 80 else line[:77] + "...")


def shown_name(name: str) -> str:
    """A column's name as it can be printed: a file's own text may hold anything, escape sequences too."""
    name = name if len(name) <= 40 else name[:37] + "..."
    return name if name.isprintable() else ascii(name)[1:-1]


def _required(trace_format: TraceFormat) -> set[str]:
    # A JSON row lacks what it lacks: later rows are no better by the first one's example.
    return set(trace_format.marks) if isinstance(trace_format, JsonLinesFormat) else set(trace_format.used)


def _likeness(trace_format: TraceFormat, first_line: str) -> float:
    """How near a first line is to a format: the fields that it has, or nearly has."""
    names = trace_format.names_in(first_line)
    fields = set(trace_format.fields)
    if not names:
        return -1.0 if trace_format.has_header == first_line.lstrip().startswith("{") else 0.0
    found = len(fields & set(names))
    similar = (max(_similarity(field, name) for name in names[:50]) for field in fields)
    return found + sum(similar) / len(fields)


def _similarity(field: str, name: str) -> float:
    ratio = difflib.SequenceMatcher(None, field.lower(), name.lower()).ratio()
    return ratio if ratio > 0.6 else 0.0
