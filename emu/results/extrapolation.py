"""Which steps a timing model had to extrapolate for."""

from bisect import bisect_left
from collections.abc import Sequence

from emu.core.timing.model import TimingModel
from emu.results.columns import Batches


def num_extrapolated_steps(batches: Batches, timings: Sequence[TimingModel]) -> int:
    """How many steps lay outside what their machine's timing model was measured on; `timings` has one a machine.

    In one batch only the context grows from step to step, and a model that reaches some context reaches any smaller one. So
    all of a batch is settled by its first step where that lies outside, and by its last one where that lies inside.
    """
    rows = zip(
        batches.machine.tolist(),
        batches.num_steps.tolist(),
        batches.num_decodes.tolist(),
        batches.context_tokens.tolist(),
        batches.num_prefills.tolist(),
        strict=True,
    )
    prompt_tokens = batches.prompt_tokens.tolist()
    num_extrapolated = next_prompt = 0
    for machine, num_steps, num_decodes, context_tokens, num_prefills in rows:
        extrapolates = timings[machine].extrapolates
        prompts = prompt_tokens[next_prompt : next_prompt + num_prefills]
        next_prompt += num_prefills
        if extrapolates(prompts, num_decodes, context_tokens):
            num_extrapolated += num_steps
        elif num_steps > 1:
            contexts = range(context_tokens, context_tokens + num_steps * num_decodes, num_decodes)
            if extrapolates((), num_decodes, contexts[-1]):
                inside = bisect_left(contexts, True, key=lambda context: extrapolates((), num_decodes, context))
                num_extrapolated += num_steps - inside
    return num_extrapolated
