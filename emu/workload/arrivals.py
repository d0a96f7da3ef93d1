"""When requests arrive: a renewal process, at a chosen rate, for a chosen time."""

import math

import numpy as np

from emu.core import setting
from emu.core.seeding import random_stream
from emu.workload.memory import MANY_REQUESTS, GenerationProgress, require_memory
from emu.workload.workload import WorkloadError

MAX_NUM_REQUESTS = 50_000_000


class Arrivals:
    """Arrivals at `rate_rps` requests per second on average, from 0 to `duration_s` seconds (excluded).

    `arrivals` names the gaps between them: `poisson` (exponential), `gamma` (coefficient of variation `cv`; above 1
    is burstier than Poisson) or `constant` (every 1 / rate_rps seconds, the first at 0).
    """

    def __init__(self, rate_rps: float, duration_s: float, arrivals: str, cv: float) -> None:
        self.rate_rps = setting.positive("workload.rate_rps", rate_rps)
        self.duration_s = setting.seconds("workload.duration_s", duration_s)
        self.arrivals = setting.one_of("workload.arrivals", arrivals, ("poisson", "gamma", "constant"))
        self.cv = setting.between("workload.cv", cv, 0.01, 100)
        if arrivals != "gamma" and self.cv != 1:
            raise WorkloadError(f"workload.cv={cv}: expected 1, as workload.arrivals={arrivals} has a cv of its own")
        if self.rate_rps * self.duration_s > MAX_NUM_REQUESTS:
            raise WorkloadError(
                f"workload.rate_rps={rate_rps} for workload.duration_s={duration_s}: "
                f"expected at most {MAX_NUM_REQUESTS} requests"
            )

    def times_s(self, seed: int) -> np.ndarray:
        """Arrival times in seconds, ascending. The gaps depend on `seed` alone and are divided by the rate, so that
        another rate or duration gives the same pattern stretched or cut. Raises WorkloadError where none arrives, or more than
        memory holds.
        """
        num_expected = self.rate_rps * self.duration_s
        key = f"workload.rate_rps={self.rate_rps:g} for workload.duration_s={self.duration_s:g}"
        require_memory(key, num_expected, "a lower rate or a shorter duration")
        if num_expected > MANY_REQUESTS:
            GenerationProgress().say(f"generating about {num_expected:,.0f} requests")
        num_drawn = math.ceil(num_expected + 6 * self.cv * math.sqrt(num_expected)) + 1
        if self.arrivals == "constant":
            arrival_s = np.arange(num_drawn) / self.rate_rps
        else:
            rng = random_stream(seed, "workload.arrivals")
            gaps = self._unit_gaps(rng, num_drawn)
            while (arrival_s := np.cumsum(gaps) / self.rate_rps)[-1] < self.duration_s:
                gaps = np.concatenate([gaps, self._unit_gaps(rng, len(gaps))])
        arrival_s = arrival_s[: np.searchsorted(arrival_s, self.duration_s)]
        if not len(arrival_s):
            raise WorkloadError(
                f"workload.rate_rps={self.rate_rps:g} for workload.duration_s={self.duration_s:g}: no request arrives "
                f"(seed {seed}); expected a higher rate or a longer duration"
            )
        return arrival_s

    def _unit_gaps(self, rng: np.random.Generator, num_gaps: int) -> np.ndarray:
        if self.arrivals == "poisson":
            return rng.standard_exponential(num_gaps)
        return rng.standard_gamma(self.cv**-2, num_gaps) * self.cv**2
