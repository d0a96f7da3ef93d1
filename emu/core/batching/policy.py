"""What a machine asks its batching policy."""

from collections.abc import Iterable
from collections.abc import Sequence as Seq
from typing import Protocol

from emu.core.sequence import Sequence


class BatchingPolicy(Protocol):
    """Chooses the next step. Asked only where prompts wait: without any, all decodes run."""

    def next_batch(self, prompts: Iterable[Sequence], decodes: Seq[Sequence]) -> tuple[list[Sequence], list[Sequence]]:
        """Return the prompts to prefill in the next step and the decodes to leave out of it (to pause).

        `prompts` are the waiting ones in order, as far as memory admits them (a lazy iterator: ask only as far as needed);
        those returned must be its first ones, and the last may be prefilled in part: its `num_chunk` says how much.
        `decodes` are all that could run, oldest member of the batch first.
        """
        ...
