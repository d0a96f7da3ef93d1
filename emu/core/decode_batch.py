"""The decodes of one machine: those in the batch, which grow by one token a step, and those paused beside it."""

from emu.core.kv_cache import KVCache
from emu.core.messages import DecodeJoin
from emu.core.sequence import Sequence


class DecodeBatch:
    """`active` takes part in the steps; `paused` is left out in favour of prompts and keeps its blocks.

    At the start of a step every decode, active or paused, holds the blocks of its cached tokens and one more.
    `context_tokens` is what the active ones attend to in their next step. `leaves` are those that left the batch since it
    was last formed, other than by finishing.
    """

    def __init__(self, kv: KVCache) -> None:
        self._kv = kv
        self.active: dict[int, Sequence] = {}
        self.paused: dict[int, Sequence] = {}
        self.context_tokens = 0
        self.leaves: list[int] = []

    def advance(self, num_steps: int) -> None:
        """Pass steps that the next one followed at once."""
        if self.active and num_steps:
            self._kv.advance(num_steps)
            self.context_tokens += num_steps * len(self.active)

    def end_run(self, num_steps: int) -> None:
        """Pass the last steps of a run. Until `grow`, each holds just the blocks of its cached tokens."""
        self._kv.end_run(num_steps)
        self.context_tokens += num_steps * len(self.active)

    def remove(self, seq: Sequence) -> None:
        """Take an active decode out at the end of a run and free its blocks."""
        self._deactivate(seq)
        self._kv.release(self._kv.blocks_for(seq.num_cached))

    def make_room(self, ready: dict[int, Sequence]) -> list[Sequence]:
        """Evict the latest arrivals, `ready` ones included, until the growth of the rest has its blocks; return them."""
        evicted = []
        while self._kv.growth() > self._kv.num_free:
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
        joining = [*self.paused.values(), *newcomers.values()]
        if left_out:
            for seq in left_out:
                seq.num_pauses += 1
                if seq.request_id in self.active:
                    self._deactivate(seq)
                    seq.num_blocks = self._kv.blocks_for(seq.num_cached + 1)
                    self.leaves.append(seq.request_id)
            self.paused = {seq.request_id: seq for seq in left_out}
            joining = [seq for seq in joining if seq.request_id not in self.paused]
        elif self.paused:
            self.paused = {}
        return tuple([self._activate(seq) for seq in joining])

    def _activate(self, seq: Sequence) -> DecodeJoin:
        self.active[seq.request_id] = seq
        self._kv.join(seq.num_cached)
        self.context_tokens += seq.num_cached + 1
        seq.joined_at = self._kv.step
        return DecodeJoin(seq.request_id, seq.attempt, seq.num_cached, seq.num_generated)

    def _deactivate(self, seq: Sequence) -> None:
        del self.active[seq.request_id]
        num_steps = self._kv.step - seq.joined_at
        seq.num_cached += num_steps
        seq.num_generated += num_steps
        self._kv.leave(seq.num_cached)
        self.context_tokens -= seq.num_cached + 1
