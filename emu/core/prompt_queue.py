"""The prompts that wait at one machine, and how many of its blocks are held for hand-overs."""

from collections import deque
from collections.abc import Iterator

from emu.core.kv_cache import KVCache
from emu.core.sequence import Sequence


class PromptQueue:
    """`waiting` prompts of machine `index` in order; the first may have been prefilled in part, and then has its blocks.

    `num_held_blocks`, at most `max_held_blocks`, are those that were taken by a prompt that decodes elsewhere, from its
    prefill until it has been handed over.
    """

    def __init__(self, index: int, kv: KVCache, max_held_blocks: int) -> None:
        self._index = index
        self._kv = kv
        self.waiting: deque[Sequence] = deque()
        self.max_held_blocks = max_held_blocks
        self.num_held_blocks = 0

    def admissible(self) -> Iterator[Sequence]:
        """Waiting prompts in order, up to the first for which there are no blocks."""
        num_blocks = 0
        num_held = self.num_held_blocks
        for seq in self.waiting:
            if seq.num_prefilled:
                yield seq
                continue
            num_blocks += seq.num_blocks
            if seq.decode_on != self._index:
                num_held += seq.num_blocks
            if num_held > self.max_held_blocks or not self._kv.can_admit(num_blocks, self.num_held_blocks):
                return
            yield seq

    def take(self, prompts: list[Sequence]) -> None:
        """Reserve the blocks of `prompts`, which are the first ones waiting, and let them go."""
        for seq in prompts:
            self.waiting.popleft()
            if seq.num_prefilled:
                continue
            self._kv.reserve(seq.num_blocks)
            if seq.decode_on != self._index:
                self.num_held_blocks += seq.num_blocks

    def release(self, seq: Sequence) -> None:
        """Give back the blocks of a prompt that was taken."""
        self._kv.release(seq.num_blocks)
        if seq.decode_on != self._index:
            self.num_held_blocks -= seq.num_blocks
