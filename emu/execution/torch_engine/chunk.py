"""What one sequence contributes to a forward pass."""

from collections.abc import Sequence
from typing import NamedTuple

from emu.execution.torch_engine.sampling import GREEDY, Sampling


class Chunk(NamedTuple):
    """Consecutive tokens of one sequence that a pass runs: the last one of a decode, a prompt, a part of a prompt.

    `num_before` of the sequence's tokens are in the KV cache already: it is the position of the first of these. `blocks` are
    the sequence's KV blocks in order, with room for these tokens. `wants_token`: whether to draw the token that comes next.
    """

    token_ids: Sequence[int]
    num_before: int
    blocks: Sequence[int]
    wants_token: bool = True
    sampling: Sampling = GREEDY

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def context(self) -> int:
        """Tokens of the sequence that are in the KV cache once these are."""
        return self.num_before + len(self.token_ids)

    def slots(self, block_tokens: int) -> list[int]:
        """Where in the cache its tokens go: block x block_tokens + place in the block."""
        positions = range(self.num_before, self.context)
        return [self.blocks[position // block_tokens] * block_tokens + position % block_tokens for position in positions]

    def used_blocks(self, block_tokens: int) -> Sequence[int]:
        """The blocks that hold its context."""
        return self.blocks[: -(-self.context // block_tokens)]
