"""Times probe steps on an engine."""

import time
from typing import TYPE_CHECKING

from emu.core.timing.probe import DECODE, NUM_TOKENS, PREFILL

if TYPE_CHECKING:  # torch stays out of the driver's process
    from emu.execution.torch_engine.engine import Engine


# In this order, and whether each counts: the first one wakes the processor, and fills its caches.
STEPS = ((DECODE, False), (DECODE, True), (DECODE, True), (PREFILL, True))


class SpeedProbe:
    """Runs probe steps with `engine`, in blocks of its cache that nobody else gets.

    They tell the speed of a machine only against others that were run in the same order: `STEPS`.
    """

    def __init__(self, engine: "Engine") -> None:
        from emu.execution.torch_engine.engine import Chunk

        blocks = engine.cache.allocate(self.num_blocks(engine.cache.block_tokens))
        self._engine = engine
        self._chunks = {PREFILL: [Chunk([0] * NUM_TOKENS, 0, blocks)], DECODE: [Chunk([0], NUM_TOKENS, blocks)]}
        self.step(PREFILL)  # whose K and V the decodes read

    @staticmethod
    def num_blocks(block_tokens: int) -> int:
        """KV blocks that probe steps take."""
        return -(-(NUM_TOKENS + 1) // block_tokens)

    def step(self, phase: str) -> float:
        """Run a probe step of this phase; the seconds it took. In the thread of the steps."""
        start_s = time.monotonic()
        self._engine.step(self._chunks[phase])
        return time.monotonic() - start_s
