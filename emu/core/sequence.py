"""One attempt of a request on one machine."""

from emu.core.messages import KVReady


class Sequence:
    """`num_cached` tokens of KV and `num_generated` output tokens (both as of its last join, while it decodes).

    Before its prefill `num_cached` is what the prefill will cache: `num_prefilled` is what it has cached so far, `num_chunk`
    what the step that it takes part in caches. `num_blocks` is what it holds now.
    """

    __slots__ = (
        "arrival_s",
        "attempt",
        "decode_on",
        "is_offered",
        "joined_at",
        "num_blocks",
        "num_cached",
        "num_chunk",
        "num_generated",
        "num_pauses",
        "num_pauses_in_a_row",
        "num_prefilled",
        "offer",
        "pull_s",
        "ready_s",
        "request_id",
    )

    # Set where a sequence comes to need them: its blocks and `decode_on` with a prompt, `joined_at` when it joins the batch,
    # `offer`, `ready_s` and `pull_s` where it is handed over.
    num_blocks: int
    decode_on: int
    joined_at: int
    offer: KVReady
    ready_s: float
    pull_s: float

    def __init__(self, request_id: int, attempt: int, arrival_s: float, num_cached: int, num_generated: int) -> None:
        self.request_id = request_id
        self.attempt = attempt
        self.arrival_s = arrival_s
        self.num_cached = self.num_chunk = num_cached
        self.num_prefilled = 0
        self.num_generated = num_generated
        self.num_pauses = 0
        self.num_pauses_in_a_row = 0  # since it last took part in a step
        self.is_offered = False

    @property
    def order(self) -> tuple[float, int]:
        """Sorts by arrival, equal arrivals by number."""
        return self.arrival_s, self.request_id
