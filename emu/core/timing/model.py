"""The question every timing model answers: how long does this forward pass take?"""

from collections.abc import Sequence
from typing import Protocol


class TimingError(ValueError):
    """A timing model that cannot be built, such as a model and hardware nobody profiled. The text is for the user."""


class TimingModel(Protocol):
    """Duration of one forward pass of one machine, in seconds as Python floats.

    `prompt_tokens` holds the length of each prompt that is prefilled in the pass; `num_seqs` >= 1 sequences decode one
    token each and read `context_tokens` tokens of KV cache, summed over these sequences.
    """

    def prefill_s(self, prompt_tokens: Sequence[int]) -> float:
        """One pass over these prompts together."""
        ...

    def decode_s(self, num_seqs: int, context_tokens: int) -> float:
        """One decode step."""
        ...

    def mixed_s(self, prompt_tokens: Sequence[int], num_seqs: int, context_tokens: int) -> float:
        """One pass that prompts and decodes share; with only one of the two it is `prefill_s` or `decode_s`."""
        ...

    def decode_boundaries(self, start_s: float, num_seqs: int, context_tokens: int, num_steps: int) -> list[float]:
        """End times of `num_steps` consecutive decode steps of one batch, whose context grows by `num_seqs` each step.

        This loop is the definition. A model that has a faster way must return the same floats, bit for bit.
        """
        boundaries, now_s = [], start_s
        for context in range(context_tokens, context_tokens + num_steps * num_seqs, num_seqs):
            now_s = now_s + self.decode_s(num_seqs, context)
            boundaries.append(now_s)
        return boundaries

    def chunk_attention_s(self, num_tokens: int, num_before: int) -> float:
        """What `num_tokens` of a prompt take more than a prompt of as many, for they attend to `num_before` tokens before them.

        Here, from the times of whole prompts: what the prompt takes up to the end of the chunk less what it takes up to its
        start, if that is more than a prompt of the chunk's size. So a prompt in chunks takes no less than in one pass.
        """
        share_s = self.prefill_s([num_before + num_tokens]) - self.prefill_s([num_before])
        return max(0.0, share_s - self.prefill_s([num_tokens]))

    def extrapolates(self, prompt_tokens: Sequence[int], num_seqs: int, context_tokens: int) -> bool:
        """Whether this pass lies outside what the model was measured on (no prompts, or `num_seqs` 0, is allowed)."""
        ...

    def relative_error(self, prompt_tokens: Sequence[int], num_seqs: int, context_tokens: int) -> float | None:
        """The stated relative error of the time of this pass (0.04 is 4 %); None where none is stated, as here."""
        return None

    def probe_s(self, phase: str) -> float | None:
        """A probe step of this phase, prefill or decode: see `core.timing.probe`; None where that was not measured, as here."""
        return None
