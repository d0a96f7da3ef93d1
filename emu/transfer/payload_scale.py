"""Which fraction of the true KV bytes this host can move beside everything else it does."""

from dataclasses import dataclass

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

    def pull_s(self, num_bytes: float) -> float:
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
