"""Requests replayed from a trace file: its real arrival times and lengths, and its prompts where it has them."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from emu.core import setting
from emu.workload.origin import TraceOrigin
from emu.workload.tokenizer import token_ids
from emu.workload.traces.formats import TRACE_FORMATS
from emu.workload.traces.read import ReadSettings, TraceRows, read_trace
from emu.workload.traces.times import UNITS
from emu.workload.traces.window import Window
from emu.workload.workload import Workload, WorkloadError


class Trace:
    """The requests of the file at `path` that arrive from `start_s` to `start_s + duration_s` (excluded) of its time.

    `format` is a key of TRACE_FORMATS or, to go by the file's first line, `auto`. Text is made into token ids by the
    `tokenizer`, a Hugging Face tokenizer.json or the folder that it is in; '' is none. `time_unit` (`auto`, `s`, `ms`, `us`,
    `ns`) is for formats that fix none. Rows without output are refused or, `zero_outputs=skip`, left out; rows out of order are
    refused or, `unsorted=sort`, sorted.

    The window is cut in the trace's own time (`duration_s` may be infinite, to the end) and then played `rate_scale` times as
    fast, from 0: whatever the scale, the requests are the same, and they arrive within duration_s / rate_scale seconds.
    `start_s=auto` is 0, with the cost counted from the first arrival instead.
    """

    # Settings of the other workloads that a user may try here, and why there is no such key.
    WHY_NOT: ClassVar[dict[str, str]] = dict.fromkeys(
        ("rate_rps", "arrivals", "cv"),
        "a trace brings its own arrival times; play it faster or slower with workload.rate_scale",
    )

    def __init__(
        self,
        path: str,
        format: str,
        tokenizer: str,
        start_s: float | str,
        duration_s: float,
        rate_scale: float,
        time_unit: str,
        zero_outputs: str,
        unsorted: str,
        skip_impossible: bool = False,
    ) -> None:
        self.path = Path(str(path)).expanduser()
        self.tokenizer = str(tokenizer)
        self.is_start_given = start_s != "auto"
        if isinstance(start_s, str) and self.is_start_given:
            raise setting.SettingError(f"workload.start_s={start_s}: expected auto or a number >= 0")
        self.window = Window(
            0.0 if isinstance(start_s, str) else setting.not_negative("workload.start_s", start_s, least=0),
            setting.positive_or_inf("workload.duration_s", duration_s),
        )
        self.rate_scale = setting.positive("workload.rate_scale", rate_scale)
        self.settings = ReadSettings(
            setting.one_of("workload.format", format, ("auto", *TRACE_FORMATS)),
            setting.one_of("workload.time_unit", time_unit, UNITS),
            setting.one_of("workload.zero_outputs", zero_outputs, ("refuse", "skip")),
            setting.one_of("workload.unsorted", unsorted, ("refuse", "sort")),
        )
        self.skip_impossible = skip_impossible

    def build(self, seed: int) -> Workload:
        """Read the file and cut the window. Nothing is drawn, so `seed` changes nothing. Raises WorkloadError."""
        rows = read_trace(self.path, self.window, self.settings)
        prompts, prompt_ids = rows.prompts, None
        if isinstance(prompts[0], str):
            if not self.tokenizer:
                raise WorkloadError(
                    f"workload.path={self.path}: its prompts are text; "
                    "expected workload.tokenizer=FOLDER with the model's tokenizer.json"
                )
            prompts = token_ids(prompts, Path(self.tokenizer).expanduser())
        if isinstance(prompts[0], np.ndarray):
            prompt_ids = tuple(prompts)
            prompts = np.array([len(ids) for ids in prompt_ids], np.int64)
        return Workload(
            name=self.path.name,
            arrival_s=rows.arrival_s / self.rate_scale,
            prompt_tokens=prompts,
            output_tokens=rows.output_tokens,
            prompt_ids=prompt_ids,
            columns=rows.columns,
            origin=self._origin(rows, prompts),
        )

    def _origin(self, rows: TraceRows, prompt_tokens: np.ndarray) -> TraceOrigin:
        hashes = rows.columns.get("hash_ids")
        share = None if hashes is None else repeated_prefix_share(hashes, prompt_tokens, rows.format.block_tokens)
        return TraceOrigin(
            path=str(self.path),
            format=rows.format.name,
            time_unit=rows.time_unit,
            sha256=rows.sha256,
            start_s=self.window.start_s,
            duration_s=self.window.duration_s,
            is_start_given=self.is_start_given,
            requests=len(rows.arrival_s),
            requests_in_file=rows.requests_in_file,
            file_span_s=rows.last_s,
            unused_columns=rows.unused_columns,
            skipped=rows.skipped,
            reordered=rows.reordered,
            repeated_prefix_share=share,
        )


def repeated_prefix_share(hashes: Sequence[np.ndarray], prompt_tokens: np.ndarray, block_tokens: int) -> float:
    """The share of all prompt tokens in leading blocks, of `block_tokens` each, that an earlier prompt had as well.

    Equal entries of `hashes` are blocks equal up to and including themselves.
    """
    seen: set[int] = set()
    num_repeated = 0
    for blocks, num_tokens in zip(hashes, prompt_tokens.tolist(), strict=True):
        blocks = blocks.tolist()
        num_seen = next((index for index, block in enumerate(blocks) if block not in seen), len(blocks))
        num_repeated += min(num_seen * block_tokens, num_tokens)
        seen.update(blocks)
    return num_repeated / int(prompt_tokens.sum())
