"""What a pass takes that prefills prompts, whole or in chunks."""

from collections.abc import Sequence

from emu.core.batch import Prefill
from emu.core.timing.model import TimingModel


def prefill_pass_s(timing: TimingModel, prefills: Sequence[Prefill], num_decodes: int, context_tokens: int) -> float:
    """Seconds of a pass with these `prefills`, and with `num_decodes` decodes that attend to `context_tokens` tokens in all.

    Models time whole prompts. A later chunk attends to the chunks before it as well, which adds `chunk_attention_s`.
    """
    num_tokens = [prefill[2] for prefill in prefills]
    pass_s = timing.mixed_s(num_tokens, num_decodes, context_tokens) if num_decodes else timing.prefill_s(num_tokens)
    for _, _, num_chunk, _, num_before, _ in prefills:
        if num_before:
            pass_s += timing.chunk_attention_s(num_chunk, num_before)
    return pass_s
