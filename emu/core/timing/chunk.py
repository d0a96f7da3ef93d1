"""What a pass takes that prefills prompts, whole or in chunks."""

from collections.abc import Sequence

from emu.core.batch import Prefill
from emu.core.timing.model import TimingModel


def prefill_pass_s(timing: TimingModel, prefills: Sequence[Prefill], num_decodes: int, context_tokens: int) -> float:
    """Seconds of a pass with these `prefills`, and with `num_decodes` decodes that attend to `context_tokens` tokens in all.

    Models time whole prompts. A later chunk attends to the chunks before it as well: it takes what the prompt would take up to
    its end less what it would take up to its start, if that is more than a prompt of its size. So a prompt in chunks never
    takes less time than in one pass.
    """
    num_tokens = [prefill[2] for prefill in prefills]
    pass_s = timing.mixed_s(num_tokens, num_decodes, context_tokens) if num_decodes else timing.prefill_s(num_tokens)
    for _, _, num_chunk, _, num_before, _ in prefills:
        if num_before:
            share_s = timing.prefill_s([num_before + num_chunk]) - timing.prefill_s([num_before])
            pass_s += max(0.0, share_s - timing.prefill_s([num_chunk]))
    return pass_s
