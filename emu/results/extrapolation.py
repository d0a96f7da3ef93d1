"""Which steps a timing model had to extrapolate for."""

from bisect import bisect_left
from collections.abc import Sequence

from emu.core.timing.model import TimingModel
from emu.results.columns import Batches


def num_extrapolated_steps(batches: Batches, timings: Sequence[TimingModel]) -> int:
    """How many steps lay outside what their machine's timing model was measured on; `timings` has one a machine.

    In one batch only the context grows from step to step, and a measured range has no holes. So a batch whose first and
    last step agree is settled, and in any other the steps change sides once.
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
        first = extrapolates(prompts, num_decodes, context_tokens)
        if num_steps == 1:
            num_extrapolated += first
            continue
        contexts = range(context_tokens, context_tokens + num_steps * num_decodes, num_decodes)
        num_like_first = num_steps
        if extrapolates((), num_decodes, contexts[-1]) != first:
            num_like_first = bisect_left(contexts, True, key=lambda context: extrapolates((), num_decodes, context) != first)
        num_extrapolated += num_like_first if first else num_steps - num_like_first
    return num_extrapolated
