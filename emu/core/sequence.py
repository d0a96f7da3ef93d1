"""One attempt of a request on one machine."""


class Sequence:
    """`num_cached` tokens of KV and `num_generated` output tokens (both as of its last join, while it decodes).

    Before its prefill `num_cached` is what the prefill will cache. `num_blocks` is what it holds now.
    """

    __slots__ = (
        "arrival_s",
        "attempt",
        "decode_on",
        "joined_at",
        "num_blocks",
        "num_cached",
        "num_generated",
        "num_pauses",
        "pull_s",
        "ready_s",
        "request_id",
        "source",
    )

    def __init__(self, request_id: int, attempt: int, arrival_s: float, num_cached: int, num_generated: int) -> None:
        self.request_id = request_id
        self.attempt = attempt
        self.arrival_s = arrival_s
        self.num_cached = num_cached
        self.num_generated = num_generated
        self.decode_on = self.source = -1
        self.num_blocks = self.num_pauses = self.joined_at = 0
        self.ready_s = self.pull_s = 0.0

    @property
    def order(self) -> tuple[float, int]:
        """Sorts by arrival, equal arrivals by number."""
        return self.arrival_s, self.request_id
