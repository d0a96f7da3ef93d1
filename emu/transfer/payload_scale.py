"""Which fraction of the true KV bytes this host can move beside everything else it does, or how slowly it can move them all."""

import math
from dataclasses import dataclass

import numpy as np

SMALL_BYTES, LARGE_BYTES = 64 << 10, 64 << 20
MAX_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class TransferProbe:
    """Seconds that pulling a payload of SMALL_BYTES and one of LARGE_BYTES took: a line through the two is the model."""

    small_s: float
    large_s: float

    @property
    def bytes_per_s(self) -> float:
        """The rate of large payloads."""
        return LARGE_BYTES / self.large_s

    def pull_s(self, num_bytes: float | np.ndarray) -> float | np.ndarray:
        slope = max(0.0, self.large_s - self.small_s) / (LARGE_BYTES - SMALL_BYTES)
        return self.small_s + slope * (num_bytes - SMALL_BYTES)


def choose_payload_scale(probe: TransferProbe, transfers_per_s: float, mean_bytes: float, modelled_s: float) -> float:
    """The largest power of two <= 1 at which moving payloads disturbs neither the host nor the run.

    The host: the expected bytes/s stay under a quarter of the probed rate, that of payloads of the size which would be moved,
    as small ones cost more for their bytes: transfers/s x seconds of a pull <= 1/4. The run: the mean payload is pulled in the
    `modelled_s` that its transfer takes in the emulated cluster. A request decodes when both are through; with the first
    condition alone nearly every copy outlasts its model, and the coding trace's median E2E grows by 5 %.
    Where no size meets both, payloads come down to at most 64 KiB on average. `mean_bytes` is the true size of a KV cache, and
    times are wall seconds.
    """
    scale = 1.0
    while scale * mean_bytes > SMALL_BYTES:
        pull_s = probe.pull_s(scale * mean_bytes)
        if transfers_per_s * pull_s <= MAX_SHARE and pull_s <= modelled_s:
            break
        scale /= 2
    return scale


def choose_dilation(probe: TransferProbe, transfers_per_s: float, num_bytes: np.ndarray, modelled_s: np.ndarray) -> float:
    """The least dilation, wall seconds per emulated second, at which payloads of `num_bytes` each are moved in time.

    As `choose_payload_scale`, for a scale that is given: the host is busy with them for a quarter of the time at most, and 99 %
    of them are pulled in the `modelled_s` that their transfers take in the emulated cluster. `transfers_per_s` and `modelled_s`
    are emulated. Two digits, rounded up; at least 1.
    """
    pull_s = np.asarray(probe.pull_s(num_bytes))
    least = max(1.0, transfers_per_s * float(pull_s.mean()) / MAX_SHARE, float(np.percentile(pull_s / modelled_s, 99)))
    step = 10.0 ** (math.floor(math.log10(least)) - 1)
    return round(math.ceil(least / step - 1e-9) * step, 10)
