"""Which steps a timing model had to extrapolate for."""

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from itertools import islice

import numpy as np

from emu.core.timing.model import TimingModel
from emu.results.columns import Batches


def num_extrapolated_steps(batches: Batches, timings: Sequence[TimingModel]) -> int:
    """How many steps lay outside what their machine's timing model was measured on; `timings` has one a machine.

    In one batch only the context grows from step to step, and a model that reaches some context reaches any smaller one. So
    all of a batch is settled by its first step where that lies outside, and by its last one where that lies inside.
    """
    first_batch = np.searchsorted(batches.machine, np.arange(len(timings) + 1))
    first_prompt = np.append(0, np.cumsum(batches.num_prefills))[first_batch]
    num_extrapolated = 0
    for machine, timing in enumerate(timings):
        of_machine = slice(first_batch[machine], first_batch[machine + 1])
        columns = (batches.num_steps, batches.num_decodes, batches.context_tokens, batches.num_prefills)
        rows = zip(*(column[of_machine].tolist() for column in columns), strict=True)
        prompts = iter(batches.prompt_tokens[first_prompt[machine] : first_prompt[machine + 1]].tolist())
        for num_steps, num_decodes, context_tokens, num_prefills in rows:
            prompt_tokens = tuple(islice(prompts, num_prefills)) if num_prefills else ()
            if timing.extrapolates(prompt_tokens, num_decodes, context_tokens):
                num_extrapolated += num_steps
            elif num_steps > 1:
                contexts = range(context_tokens, context_tokens + num_steps * num_decodes, num_decodes)
                if timing.extrapolates((), num_decodes, contexts[-1]):
                    outside = partial(timing.extrapolates, (), num_decodes)
                    num_extrapolated += num_steps - bisect_left(contexts, True, key=outside)
    return num_extrapolated
