"""A timing model at one end of its stated error: what a run would be if every pass took as long as that allows."""

from collections.abc import Sequence

from emu.core.timing.model import TimingModel


class Biased(TimingModel):
    """`timing` with every pass taking (1 + `sign` x its stated relative error) times as long.

    `sign` is +1 for the slow end of the error, -1 for the fast one. A pass without a stated error takes what it takes; one of
    more than `MAX_ERROR` counts as that, so that no pass takes no time.
    """

    MAX_ERROR = 0.9

    def __init__(self, timing: TimingModel, sign: float) -> None:
        self._timing = timing
        self._sign = sign

    def _factor(self, prompt_tokens: Sequence[int], num_seqs: int, context_tokens: int) -> float:
        error = self._timing.relative_error(prompt_tokens, num_seqs, context_tokens)
        return 1.0 if error is None else 1.0 + self._sign * min(error, self.MAX_ERROR)

    def prefill_s(self, prompt_tokens: Sequence[int]) -> float:
        return self._factor(prompt_tokens, 0, 0) * self._timing.prefill_s(prompt_tokens)

    def decode_s(self, num_seqs: int, context_tokens: int) -> float:
        return self._factor((), num_seqs, context_tokens) * self._timing.decode_s(num_seqs, context_tokens)

    def mixed_s(self, prompt_tokens: Sequence[int], num_seqs: int, context_tokens: int) -> float:
        factor = self._factor(prompt_tokens, num_seqs, context_tokens)
        return factor * self._timing.mixed_s(prompt_tokens, num_seqs, context_tokens)

    def chunk_attention_s(self, num_tokens: int, num_before: int) -> float:
        return self._factor((num_tokens,), 0, 0) * self._timing.chunk_attention_s(num_tokens, num_before)

    def extrapolates(self, prompt_tokens: Sequence[int], num_seqs: int, context_tokens: int) -> bool:
        return self._timing.extrapolates(prompt_tokens, num_seqs, context_tokens)

    def relative_error(self, prompt_tokens: Sequence[int], num_seqs: int, context_tokens: int) -> float | None:
        return self._timing.relative_error(prompt_tokens, num_seqs, context_tokens)
