"""How many times longer each request took than it takes alone on the reference machine."""

from dataclasses import dataclass

import numpy as np

from emu.core.timing.model import TimingModel
from emu.results.columns import Columns


@dataclass(frozen=True, slots=True, eq=False)
class Slowdowns:
    """Ratios of a run's times to those of the same requests alone, float64.

    `ttft`, `tbt` and `e2e` have one entry a request; `tbt` compares the means of a request's gaps, NaN where it had one token
    only. `gaps` compares every gap between two tokens with its request's mean gap alone, each as often as `gap_weights` (int)
    says; a gap that the requests of a batch have in common is told once, over the mean of their gaps alone. These differ by
    what context adds to a lone decode step: 5 % between 100 and 8,000 tokens for Llama2-70B on DGX-A100.
    """

    ttft: np.ndarray
    tbt: np.ndarray
    e2e: np.ndarray
    gaps: np.ndarray
    gap_weights: np.ndarray


def slowdowns(columns: Columns, measured: np.ndarray, reference: TimingModel) -> Slowdowns:
    """Of the requests in `measured` (bool, one entry a request; each finished, with every token recorded).

    A mean of gaps is (E2E - TTFT) / (tokens - 1), in the run and alone. The published simulator divides by the tokens instead;
    the ratio is the same.
    """
    requests = columns.requests
    output_tokens = requests.output_tokens[measured]
    prefill_s, decode_s = lone_times_s(reference, requests.prompt_tokens[measured], output_tokens)
    ttft = requests.ttft_s[measured] / prefill_s
    e2e = requests.e2e_s[measured] / (prefill_s + decode_s)
    several = output_tokens > 1
    tbt = np.full(len(ttft), np.nan)
    np.divide((requests.last_token_s - requests.first_token_s)[measured], decode_s, out=tbt, where=several)
    unit_s = np.zeros(len(requests))
    unit_s[measured] = decode_s / np.maximum(output_tokens - 1, 1)
    del prefill_s, decode_s, output_tokens, several
    return Slowdowns(ttft, tbt, e2e, *columns.tokens.gaps(measured, unit_s))


def lone_times_s(timing: TimingModel, prompt_tokens: np.ndarray, output_tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of each request's prefill and of all its decode steps (float64), alone on a machine: nothing waits.

    `prompt_tokens` and `output_tokens` (int, >= 1) have one entry a request. The first token comes with the prefill; the
    k-th decode step attends to prompt + k tokens. Costs one timing of each length that occurs, not of each request.
    """
    if not len(prompt_tokens):
        return np.empty(0), np.empty(0)
    lengths, place = np.unique(prompt_tokens, return_inverse=True)
    prefill_s = np.array([timing.prefill_s((length,)) for length in lengths.tolist()])
    # A lone decode step depends on its context alone: the steps of any request are a stretch of one long run of steps.
    shortest = int(lengths[0])
    last_context = prompt_tokens + (output_tokens - 1)
    boundaries_s = timing.decode_boundaries(0.0, 1, shortest + 1, int(last_context.max()) - shortest)
    until_s = np.array([0.0, *boundaries_s])
    return prefill_s[place], until_s[last_context - shortest] - until_s[prompt_tokens - shortest]
