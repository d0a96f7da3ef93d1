"""Mixed continuous batching: new prompts at once, sharing the step with as many decodes as fit."""

from collections.abc import Iterable
from collections.abc import Sequence as Seq

from emu.core import setting
from emu.core.batching.fcfs import take_prompts
from emu.core.sequence import Sequence


class MixedContinuous:
    """A step holds at most `max_batch_tokens`: its prompts' tokens and one for each decode.

    First the decodes that were paused `max_num_pauses` times, which no prompt can displace any more; then prompts in order
    (one longer than the rest of the step shares it with those decodes alone); then the other decodes, those paused most
    often first and the earliest arrivals among equals. What is left out is paused for this step.
    """

    def __init__(self, max_batch_tokens: int, max_num_pauses: int) -> None:
        self.max_batch_tokens = setting.whole("batching.max_batch_tokens", max_batch_tokens, 1)
        self.max_num_pauses = setting.whole("batching.max_num_pauses", max_num_pauses, 0)

    def next_batch(self, prompts: Iterable[Sequence], decodes: Seq[Sequence]) -> tuple[list[Sequence], list[Sequence]]:
        displaceable = [seq for seq in decodes if seq.num_pauses < self.max_num_pauses]
        budget = self.max_batch_tokens - (len(decodes) - len(displaceable))
        batch = take_prompts(prompts, budget)
        if not batch:
            return [], []
        budget = max(0, budget - sum(seq.num_cached for seq in batch))
        if len(displaceable) <= budget:
            return batch, []
        displaceable.sort(key=lambda seq: (-seq.num_pauses, seq.order))
        return batch, displaceable[budget:]
