"""The decodes of one machine: those in the batch, which grow by one token a step, and those paused beside it."""

from emu.core.batch import DecodeJoin
from emu.core.kv_cache import KVCache
from emu.core.messages import make
from emu.core.sequence import Sequence


class DecodeBatch:
    """`active` takes part in the steps; `paused` is left out in favour of prompts and keeps its blocks.

    At the start of a step every decode, active or paused, holds the blocks of its cached tokens and one more.
    Steps are passed in the KV cache: an active one has as many tokens more as steps since its `joined_at`. `leaves` are those
    that left the batch since it was last formed, other than by finishing.
    """

    def __init__(self, kv: KVCache) -> None:
        self._kv = kv
        self.active: dict[int, Sequence] = {}
        self.paused: dict[int, Sequence] = {}
        self._context_tokens = 0  # of the active ones at step 0, had they been in the batch by then
        self.leaves: list[int] = []

    @property
    def context_tokens(self) -> int:
        """What the active ones attend to in their next step."""
        return self._context_tokens + self._kv.step * len(self.active)

    def remove(self, seq: Sequence) -> None:
        """Take an active decode out at the end of a run and free its blocks."""
        self._deactivate(seq)
        self._kv.release(-(-seq.num_cached // self._kv.block_tokens))

    def make_room(self, ready: dict[int, Sequence]) -> list[Sequence]:
        """Evict the latest arrivals, `ready` ones included, until the growth of the rest has its blocks; return them."""
        evicted = []
        while self._kv.shortage > 0:
            candidates = [*self.active.values(), *self.paused.values(), *ready.values()]
            victim = max(candidates, key=lambda seq: seq.order)
            if victim.request_id in self.active:
                self.remove(victim)
                self.leaves.append(victim.request_id)
            else:
                del (self.paused if victim.request_id in self.paused else ready)[victim.request_id]
                self._kv.release(victim.num_blocks)
            evicted.append(victim)
        return evicted

    def form(self, newcomers: dict[int, Sequence], left_out: list[Sequence]) -> tuple[DecodeJoin, ...]:
        """Make everything here and the `newcomers` the batch, without those `left_out`. Returns who joins it."""
        joining = [*self.paused.values(), *newcomers.values()] if self.paused else newcomers.values()
        if left_out:
            for seq in left_out:
                seq.num_pauses += 1
                seq.num_pauses_in_a_row += 1
                if seq.request_id in self.active:
                    self._deactivate(seq)
                    seq.num_blocks = self._kv.blocks_for(seq.num_cached + 1)
                    self.leaves.append(seq.request_id)
            self.paused = {seq.request_id: seq for seq in left_out}
            joining = [seq for seq in joining if seq.request_id not in self.paused]
        elif self.paused:
            self.paused = {}
        joins, active, kv = [], self.active, self._kv
        step = kv.step
        for seq in joining:
            request_id, num_cached = seq.request_id, seq.num_cached
            active[request_id] = seq
            seq.joined_at = step
            seq.num_pauses_in_a_row = 0
            kv.join(num_cached)
            self._context_tokens += num_cached + 1 - step
            joins.append(make(DecodeJoin, (request_id, seq.attempt, num_cached, seq.num_generated)))
        return tuple(joins)

    def _deactivate(self, seq: Sequence) -> None:
        del self.active[seq.request_id]
        kv = self._kv
        num_steps = kv.step - seq.joined_at
        seq.num_cached += num_steps
        seq.num_generated += num_steps
        kv.leave(seq.num_cached)
        self._context_tokens -= seq.num_cached + 1 - kv.step
