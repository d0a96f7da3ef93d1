"""The nine SLOs as the published analysis judges them (splitwise-sim, notebooks/plots.ipynb and perf_model.py, MIT).

It differs from `emu.results.slo` in what a request alone is held to take, and in TBT:

- a request's TBT is (E2E - TTFT) / output tokens, though there is one gap less than tokens: 13 tokens, the median of coding,
  read 8 % low. That of the request alone has no such division.
- its reference is the decode lookup at the *prompt's* tokens, as if these were sequences: 1,020 tokens read 4 % above one
  sequence.

Throughput there is the highest rate of a grid, in steps of 10 requests/s, at which every value is below its limit, whatever
happened at lower rates.
"""

import numpy as np

from emu.core.timing.model import TimingModel
from emu.results.columns import Columns
from emu.results.distribution import percentile
from emu.results.metrics import measured_requests
from emu.results.slo import METRICS, STATISTICS, SloSettings


def published_margins(columns: Columns, reference: TimingModel, settings: SloSettings) -> dict[str, float]:
    """Limit / slowdown - 1 of each SLO (`ttft_p50`, ...) over the requests that finished; empty where none did.

    `reference` is the timing of the reference machine, as the run's timing family has it.
    """
    requests, measured = columns.requests, measured_requests(columns, warmup_s=0.0)
    if not measured.any():
        return {}
    prompt_tokens, output_tokens = requests.prompt_tokens[measured], requests.output_tokens[measured]
    ttft_s = requests.ttft_s[measured]
    e2e_s = requests.e2e_s[measured]
    lengths, index = np.unique(prompt_tokens, return_inverse=True)
    lone_ttft_s = np.array([reference.prefill_s((length,)) for length in lengths.tolist()])[index]
    lone_tbt_s = np.array([reference.decode_s(length, 0) for length in lengths.tolist()])[index]
    slowdowns = {
        "ttft": ttft_s / lone_ttft_s,
        "tbt": (e2e_s - ttft_s) / output_tokens / lone_tbt_s,
        "e2e": e2e_s / (lone_ttft_s + lone_tbt_s * (output_tokens - 1)),
    }
    return {
        f"{metric}_{statistic}": settings.limit(metric, statistic) / _percentile(slowdowns[metric], statistic) - 1
        for metric in METRICS
        for statistic in STATISTICS
    }


def _percentile(values: np.ndarray, statistic: str) -> float:
    return percentile(values, float(statistic[1:]))
