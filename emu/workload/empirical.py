"""Requests with the token lengths of a table, such as those of a production service, at any rate."""

from pathlib import Path

import numpy as np

from emu.core import setting
from emu.core.seeding import random_stream
from emu.workload.arrivals import Arrivals
from emu.workload.workload import Workload

LENGTHS_DIR = Path(__file__).parent / "lengths"


class Empirical:
    """Requests whose lengths follow the table `lengths/<lengths>.csv`; for the arrivals see `Arrivals`.

    A table's rows are `quantile, prompt_tokens, output_tokens`, quantiles ascending from 0 to 1. Prompt and output are
    drawn independently (their correlation in the Azure traces is about 0), each by linear interpolation of the inverse
    CDF, rounded to whole tokens. The lengths of the i-th request depend on the seed and i alone.
    """

    def __init__(
        self, lengths: str, rate_rps: float, duration_s: float, arrivals: str, cv: float, skip_impossible: bool = False
    ) -> None:
        tables = tuple(sorted(path.stem for path in LENGTHS_DIR.glob("*.csv")))
        self.lengths = setting.one_of("workload.lengths", lengths, tables)
        self.arrivals = Arrivals(rate_rps, duration_s, arrivals, cv)
        self.skip_impossible = skip_impossible

    def build(self, seed: int) -> Workload:
        quantile, prompt_tokens, output_tokens = np.loadtxt(LENGTHS_DIR / f"{self.lengths}.csv", delimiter=",", unpack=True)

        def draw(use: str, tokens_at_quantile: np.ndarray) -> np.ndarray:
            tokens = np.interp(random_stream(seed, use).random(len(arrival_s)), quantile, tokens_at_quantile)
            return np.rint(tokens).astype(np.int64)

        arrival_s = self.arrivals.times_s(seed)
        return Workload(
            name=self.lengths,
            arrival_s=arrival_s,
            prompt_tokens=draw("workload.prompt_tokens", prompt_tokens),
            output_tokens=draw("workload.output_tokens", output_tokens),
        )
