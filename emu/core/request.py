"""A request's life cycle: its phases, the table of allowed moves between them, and the scheduler's record of it.

The true output length is deliberately not here: no policy may see it; only an executor knows when a request ends.
"""

from enum import IntEnum


class Phase(IntEnum):
    """Where a request is, as the scheduler knows it. A prompt waiting at its machine counts as PREFILLING."""

    QUEUED = 0
    PREFILLING = 1
    TRANSFERRING = 2
    DECODING = 3
    FINISHED = 4
    FAILED = 5


ALLOWED_MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.QUEUED: frozenset({Phase.PREFILLING, Phase.FAILED}),
    # DECODING: prefilled and decoded on one machine. FINISHED: a one-token answer. QUEUED: its machine died.
    Phase.PREFILLING: frozenset({Phase.TRANSFERRING, Phase.DECODING, Phase.FINISHED, Phase.QUEUED, Phase.FAILED}),
    Phase.TRANSFERRING: frozenset({Phase.DECODING, Phase.QUEUED, Phase.FAILED}),
    Phase.DECODING: frozenset({Phase.FINISHED, Phase.QUEUED, Phase.FAILED}),
    Phase.FINISHED: frozenset(),
    Phase.FAILED: frozenset(),
}
_ALLOWED = tuple(ALLOWED_MOVES[phase] for phase in Phase)


class IllegalMove(RuntimeError):
    """A request was moved along an edge that is not in ALLOWED_MOVES: a defect of the emulator, with the request's story."""


class Request:
    """One request as the scheduler tracks it.

    `attempt` counts its starts from 1; messages of older attempts are stale. `num_generated` is how many output tokens
    precede this attempt (after an eviction or a failed transfer; 0 after a death), which its prefill recomputes with the
    prompt. `output_ids` are the token ids of its output as a machine last told them (see `messages`). `num_transfer_failures`
    counts the attempts whose KV cache could not be handed over. `predicted_output_tokens` is somebody's guess of the output's
    length, 0 where there is none. `decodes_directly`: its placement keeps it, short as it should be, where it is prefilled.
    """

    __slots__ = (
        "arrival_s",
        "attempt",
        "decode_on",
        "decodes_directly",
        "num_generated",
        "num_transfer_failures",
        "output_ids",
        "phase",
        "predicted_output_tokens",
        "prefill_on",
        "prompt_tokens",
        "request_id",
        "story",
    )

    def __init__(self, request_id: int, arrival_s: float, prompt_tokens: int, predicted_output_tokens: int = 0) -> None:
        self.request_id = request_id
        self.arrival_s = arrival_s
        self.prompt_tokens = prompt_tokens
        self.predicted_output_tokens = predicted_output_tokens
        self.decodes_directly = False
        self.attempt = 1
        self.num_generated = 0
        self.output_ids = b""
        self.num_transfer_failures = 0
        self.phase = Phase.QUEUED
        self.prefill_on = self.decode_on = -1
        self.story: list[tuple[float, Phase]] = [(arrival_s, Phase.QUEUED)]

    @property
    def prefill_tokens(self) -> int:
        """Tokens that this attempt's prefill computes: the prompt and what earlier attempts generated."""
        return self.prompt_tokens + self.num_generated

    def move_to(self, phase: Phase, now_s: float) -> None:
        """Move to `phase` at `now_s`. Raises IllegalMove for an edge that is not in the table."""
        if phase not in _ALLOWED[self.phase]:
            story = " -> ".join(f"{past.name}@{at_s:.6f}" for at_s, past in self.story)
            raise IllegalMove(f"request {self.request_id} attempt {self.attempt}: {story} -> {phase.name}@{now_s:.6f}")
        self.phase = phase
        self.story.append((now_s, phase))
