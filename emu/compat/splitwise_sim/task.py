"""One phase of a request at one machine, as the published simulator queues it."""


class Task:
    """A prompt (`prompt_tokens` > 0) or a decode (0).

    `order` is when its request came to the machine, as a count; tasks are first ordered by the request's arrival. A task
    puts `num_tokens` into a batch. `kv_bytes` are what it takes at its first start, and `held_bytes` what it has;
    `num_cached` and `num_generated` are tokens, for a decode as of the step `joined_at`.
    """

    __slots__ = (
        "arrival_s",
        "attempt",
        "counted_from",
        "decode_on",
        "held_bytes",
        "in_batch",
        "is_paused",
        "joined_at",
        "kv_bytes",
        "num_cached",
        "num_generated",
        "num_skips",
        "num_tokens",
        "order",
        "prompt_tokens",
        "pull_s",
        "ready_s",
        "request_id",
        "source",
    )

    def __init__(
        self, request_id: int, attempt: int, arrival_s: float, prompt_tokens: int, num_cached: int, num_generated: int
    ) -> None:
        self.request_id = request_id
        self.attempt = attempt
        self.arrival_s = arrival_s
        self.prompt_tokens = prompt_tokens
        self.num_tokens = prompt_tokens or 1
        self.num_cached = num_cached
        self.num_generated = num_generated
        self.decode_on = self.source = self.order = -1
        self.kv_bytes = self.held_bytes = self.joined_at = self.num_skips = 0
        self.counted_from: int | None = None  # the machine's start since which its skips count; None: they do not now
        self.in_batch = self.is_paused = False
        self.ready_s = self.pull_s = 0.0

    @property
    def rank(self) -> tuple[float, int]:
        """Sorts by the request's arrival, equal ones by when they came to the machine."""
        return self.arrival_s, self.order
