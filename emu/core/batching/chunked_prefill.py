"""Chunked prefill: every step has a token budget, decodes come first and prompts fill the rest, cut where it ends."""

from collections.abc import Iterable
from collections.abc import Sequence as Seq

from emu.core import setting
from emu.core.sequence import Sequence


class ChunkedPrefill:
    """A step holds at most `max_batch_tokens`: one for each decode, then prompts in order, the last one as far as it fits.

    So a prompt never stops the decodes beside it (Sarathi-Serve, Agrawal et al., OSDI 2024; the default of vLLM V1). Of more
    decodes than the budget those paused most often come first, and the earliest arrivals among equals.
    """

    def __init__(self, max_batch_tokens: int) -> None:
        self.max_batch_tokens = setting.whole("batching.max_batch_tokens", max_batch_tokens, 1)

    def next_batch(self, prompts: Iterable[Sequence], decodes: Seq[Sequence]) -> tuple[list[Sequence], list[Sequence]]:
        budget = self.max_batch_tokens - len(decodes)
        if budget <= 0:
            return [], sorted(decodes, key=lambda seq: (-seq.num_pauses, seq.order))[self.max_batch_tokens :]
        batch: list[Sequence] = []
        for seq in prompts:
            seq.num_chunk = min(seq.num_cached - seq.num_prefilled, budget)
            batch.append(seq)
            budget -= seq.num_chunk
            if not budget:
                break
        return batch, []
