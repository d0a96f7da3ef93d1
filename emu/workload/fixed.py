"""Requests that are all alike."""

import numpy as np

from emu.core import setting
from emu.workload.arrivals import Arrivals
from emu.workload.workload import MAX_NUM_TOKENS, Workload


class Fixed:
    """Requests of `prompt_tokens` in and `output_tokens` out each; for the arrivals see `Arrivals`."""

    def __init__(
        self,
        prompt_tokens: int,
        output_tokens: int,
        rate_rps: float,
        duration_s: float,
        arrivals: str,
        cv: float,
        skip_impossible: bool = False,
    ) -> None:
        self.prompt_tokens = setting.whole("workload.prompt_tokens", prompt_tokens, 1, MAX_NUM_TOKENS)
        self.output_tokens = setting.whole("workload.output_tokens", output_tokens, 1, MAX_NUM_TOKENS)
        self.arrivals = Arrivals(rate_rps, duration_s, arrivals, cv)
        self.skip_impossible = skip_impossible

    def build(self, seed: int) -> Workload:
        arrival_s = self.arrivals.times_s(seed)
        return Workload(
            name="fixed",
            arrival_s=arrival_s,
            prompt_tokens=np.full(len(arrival_s), self.prompt_tokens, np.int64),
            output_tokens=np.full(len(arrival_s), self.output_tokens, np.int64),
        )
