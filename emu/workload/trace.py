"""Requests replayed from a trace file: its real arrival times and lengths, and its prompts where it has them."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from emu.core import setting
from emu.workload.tokenizer import token_ids
from emu.workload.trace_format import TRACE_FORMATS, read_trace
from emu.workload.workload import Workload, WorkloadError


class Trace:
    """The requests of the file at `path` that arrive from `start_s` to `start_s + duration_s` (excluded) of its time.

    `format` is `azure`, `mooncake`, `plain`, `token_ids`, `text` or, to go by the file's first line, `auto`. Text is made into
    token ids by the `tokenizer`, a Hugging Face tokenizer.json or the folder that it is in; '' is none.

    The window is cut in the trace's own time (`duration_s` may be infinite, to the end) and then played `rate_scale` times as
    fast, from 0: whatever the scale, the requests are the same, and they arrive within duration_s / rate_scale seconds.
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
        start_s: float,
        duration_s: float,
        rate_scale: float,
        skip_impossible: bool = False,
    ) -> None:
        self.path = Path(str(path)).expanduser()
        self.format = setting.one_of("workload.format", format, ("auto", *TRACE_FORMATS))
        self.tokenizer = str(tokenizer)
        self.start_s = setting.not_negative("workload.start_s", start_s)
        self.duration_s = setting.positive_or_inf("workload.duration_s", duration_s)
        self.rate_scale = setting.positive("workload.rate_scale", rate_scale)
        self.skip_impossible = skip_impossible

    def build(self, seed: int) -> Workload:
        """Read the file and cut the window. Nothing is drawn, so `seed` changes nothing. Raises WorkloadError."""
        arrival_s, prompts, output_tokens = read_trace(self.path, self.format)
        first, end = np.searchsorted(arrival_s, [self.start_s, self.start_s + self.duration_s])
        if first == end:
            raise WorkloadError(
                f"workload.path={self.path}: no request arrives from workload.start_s={self.start_s:g} for "
                f"workload.duration_s={self.duration_s:g}; the trace's {len(arrival_s)} requests arrive from "
                f"{arrival_s[0]:g} to {arrival_s[-1]:g} s"
            )
        window = slice(first, end)
        prompts, prompt_ids = prompts[window], None
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
            arrival_s=(arrival_s[window] - self.start_s) / self.rate_scale,
            prompt_tokens=prompts,
            output_tokens=output_tokens[window],
            prompt_ids=prompt_ids,
        )
