"""Block bookkeeping of one machine's KV cache. Counts only: which block is whose is the executor's business."""

import math


class KVCache:
    """`num_blocks` blocks of `block_tokens` tokens; used + free = all, always.

    The decodes in the batch grow together, one token a step, and are kept as a histogram over the position in their last
    block, so that a run of steps costs O(block_tokens) whatever the size of the batch. The rule: at the start of a step
    every decode holds the blocks of its cached tokens + 1, the slot that the step fills.

    `watermark` is the fraction of blocks that an admission leaves free, so that running decodes can grow; where there are
    none it admits without.
    """

    __slots__ = ("_num_growing", "_slots", "block_tokens", "num_blocks", "num_free", "step", "watermark_blocks")

    def __init__(self, num_blocks: int, block_tokens: int = 16, watermark: float = 0.01) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        self.watermark_blocks = math.ceil(watermark * num_blocks)
        self.num_free = num_blocks
        # A growing decode with c cached tokens is counted at (c - steps so far) mod block_tokens, which never changes. Twice
        # over, so that what takes a block in consecutive steps always lies in one slice.
        self._slots = [0] * (2 * block_tokens)
        self._num_growing = 0
        self.step = 0

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_tokens)

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_free

    def can_admit(self, num_blocks: int, num_held: int = 0) -> bool:
        """Whether an admission may take so many blocks. `num_held` of the used ones belong to what does not grow."""
        watermark_blocks = self.watermark_blocks if self.num_used > num_held else 0
        return num_blocks <= self.num_free - watermark_blocks

    def reserve(self, num_blocks: int) -> None:
        """Take blocks. Raises RuntimeError where they are not free: the caller has to ask first."""
        if num_blocks > self.num_free:
            raise RuntimeError(f"{num_blocks} KV blocks taken where {self.num_free} of {self.num_blocks} are free")
        self.num_free -= num_blocks

    def release(self, num_blocks: int) -> None:
        """Give blocks back. Raises RuntimeError where more are given than were taken."""
        self.num_free += num_blocks
        if self.num_free > self.num_blocks:
            raise RuntimeError(f"{self.num_free} KV blocks free of {self.num_blocks}: some were given back twice")

    def join(self, num_cached: int) -> None:
        """A decode with `num_cached` tokens, holding the blocks of one more, takes part from the next step on."""
        slot, slots = (num_cached - self.step) % self.block_tokens, self._slots
        slots[slot] += 1
        slots[slot + self.block_tokens] += 1
        self._num_growing += 1

    def leave(self, num_cached: int) -> None:
        """It takes part no more; its blocks stay taken until they are released."""
        slot, slots = (num_cached - self.step) % self.block_tokens, self._slots
        slots[slot] -= 1
        slots[slot + self.block_tokens] -= 1
        self._num_growing -= 1

    def advance(self, num_steps: int) -> None:
        """Pass `num_steps` steps, each followed at once by the next: every growing decode has so many more tokens."""
        step, block_tokens = self.step, self.block_tokens
        self.step = step + num_steps
        end = 2 * block_tokens - step % block_tokens
        if num_steps < block_tokens:
            growth = sum(self._slots[end - num_steps : end])
        else:
            cycles, rest = divmod(num_steps, block_tokens)
            growth = cycles * self._num_growing + sum(self._slots[end - rest : end])
        if growth:
            self.reserve(growth)

    def end_run(self, num_steps: int) -> None:
        """Pass the last steps of a run: until `grow`, each decode holds just the blocks of its cached tokens."""
        if num_steps > 1:
            self.advance(num_steps - 1)
        self.step += 1

    @property
    def shortage(self) -> int:
        """Blocks that are not free of those that `grow` takes; 0 or less where all are."""
        return self._slots[-self.step % self.block_tokens] - self.num_free

    def grow(self) -> bool:
        """Take the blocks that the growing decodes need to hold one token more than they have cached; False where they are not
        free.
        """
        num_free = self.num_free - self._slots[-self.step % self.block_tokens]
        if num_free < 0:
            return False
        self.num_free = num_free
        return True

    def max_num_steps(self) -> int:
        """A number of steps for which no growing decode misses a block, the one they hold slots for included.

        Exact where it is less than a block's tokens, else rounded down to whole blocks.
        """
        if not self._num_growing:
            return 0
        if self.num_free >= self._num_growing:
            return 1 + self.num_free // self._num_growing * self.block_tokens
        num_steps, free = 1, self.num_free
        for offset in range(1, self.block_tokens):
            free -= self._slots[-(self.step + offset) % self.block_tokens]
            if free < 0:
                break
            num_steps += 1
        return num_steps
