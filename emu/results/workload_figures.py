"""The summary's `workload`: what was asked of the cluster, and where it comes from."""

import math
from typing import Any

import numpy as np

from emu.results.distribution import distribution
from emu.workload.workload import Workload


def workload_figures(workload: Workload) -> dict[str, Any]:
    """Name, requests, tokens of prompts and outputs, and offered rate; of a trace also its file, format and window.

    `duration_s` is the window's as chosen, or to the file's last arrival. `offered_rps` is arrivals over the seconds from the
    first arrival to the last, None for one burst.
    """
    span_s = float(workload.arrival_s[-1] - workload.arrival_s[0])
    figures = {
        "name": workload.name,
        "requests": len(workload),
        "prompt_tokens": distribution(workload.prompt_tokens.astype(np.float64)),
        "output_tokens": distribution(workload.output_tokens.astype(np.float64)),
        "offered_rps": len(workload) / span_s if span_s > 0 else None,
    }
    origin = workload.origin
    if origin is None:
        return figures
    return figures | {
        "path": origin.path,
        "format": origin.format,
        "time_unit": origin.time_unit,
        "sha256": origin.sha256,
        "start_s": origin.start_s,
        "duration_s": origin.end_s - origin.start_s if math.isinf(origin.duration_s) else origin.duration_s,
        "requests_in_file": origin.requests_in_file,
        "file_span_s": origin.file_span_s,
        "unused_columns": list(origin.unused_columns),
        "skipped": origin.skipped,
        "reordered": origin.reordered,
        "repeated_prefix_share": origin.repeated_prefix_share,
        "line": origin.line(),
    }
