"""First come, first served, one phase a step: prompts before decodes."""

from collections.abc import Iterable
from collections.abc import Sequence as Seq

from emu.core import setting
from emu.core.sequence import Sequence


class Fcfs:
    """Prompts in order, up to `max_batch_tokens` a step (a longer one alone); otherwise all decodes.

    Prompt and token machines of a Splitwise cluster have one kind of work only. On a machine that has both, prompts go
    first and every decode waits, for at most `max_num_pauses` steps in a row.
    """

    def __init__(self, max_batch_tokens: int, max_num_pauses: int) -> None:
        self.max_batch_tokens = setting.whole("batching.max_batch_tokens", max_batch_tokens, 1)
        self.max_num_pauses = setting.whole("batching.max_num_pauses", max_num_pauses, 0)

    def next_batch(self, prompts: Iterable[Sequence], decodes: Seq[Sequence]) -> tuple[list[Sequence], list[Sequence]]:
        if any(seq.num_pauses_in_a_row >= self.max_num_pauses for seq in decodes):
            return [], []
        batch = take_prompts(prompts, self.max_batch_tokens)
        return batch, list(decodes) if batch else []


def take_prompts(prompts: Iterable[Sequence], max_num_tokens: int) -> list[Sequence]:
    """The first prompts that fit into `max_num_tokens` together, or the first one alone where it is longer than that."""
    batch: list[Sequence] = []
    for seq in prompts:
        max_num_tokens -= seq.num_cached
        if batch and max_num_tokens < 0:
            break
        batch.append(seq)
        if max_num_tokens <= 0:
            break
    return batch
