"""Machines that change sides for good when load drifts: re-purposed between the prompt and the token pool."""

from typing import Protocol

from emu.core import setting
from emu.core.pools import MachineLoad, Pool, Pools


class RepurposingPolicy(Protocol):
    """Asked at every arrival."""

    def choose(self, pools: Pools, now_s: float) -> tuple[MachineLoad, Pool] | None:
        """The machine to re-purpose now and the pool that becomes its home, if any."""
        ...


class LoadDrift:
    """Splitwise names coarse-grained re-purposing for load that deviates for long and gives no algorithm (SPLITWISE.md §4).

    This one weighs, at most every `check_s` seconds, the work of both phases over the whole cluster against the machines
    bought for them: the pending prompt tokens for each prompt machine, and the share of the token machines' KV cache that
    the contexts of prefilled requests take. If at every check for `sustain_s` the prompt side had more than
    `max_prompt_tokens` a machine while the token side, with one machine less, would stay below `min_kv_share`, the token
    machine with the least KV is re-purposed; if the token side was above `max_kv_share` while the prompt side, with one
    machine less, would stay below `min_prompt_tokens` a machine, the prompt machine with the shortest queue is. Each side
    keeps one machine. The next move takes `sustain_s` again.

    Raises SettingError for values out of range, or a low mark that is not below its high mark.
    """

    def __init__(
        self,
        check_s: float,
        sustain_s: float,
        max_prompt_tokens: float,
        min_prompt_tokens: float,
        max_kv_share: float,
        min_kv_share: float,
    ) -> None:
        self.check_s = setting.period_s("repurposing.check_s", check_s)
        self.sustain_s = setting.seconds("repurposing.sustain_s", sustain_s)
        self.max_prompt_tokens = setting.positive("repurposing.max_prompt_tokens", max_prompt_tokens)
        self.min_prompt_tokens = setting.between("repurposing.min_prompt_tokens", min_prompt_tokens, 0, max_prompt_tokens)
        self.max_kv_share = setting.between("repurposing.max_kv_share", max_kv_share, 0, 1)
        self.min_kv_share = setting.between("repurposing.min_kv_share", min_kv_share, 0, max_kv_share)
        self._next_check_s = 0.0
        self._towards: Pool | None = None  # the side that has been short of machines since `_since_s`
        self._since_s = 0.0

    def choose(self, pools: Pools, now_s: float) -> tuple[MachineLoad, Pool] | None:
        if now_s < self._next_check_s:
            return None
        self._next_check_s = now_s + self.check_s
        alive = [machine for machine in pools.machines if machine.pool is not Pool.DEAD]
        sides = {home: [machine for machine in alive if machine.home is home] for home in (Pool.PROMPT, Pool.TOKEN)}
        towards = self._short_side(alive, sides[Pool.PROMPT], sides[Pool.TOKEN])
        if towards is not self._towards:
            self._towards, self._since_s = towards, now_s
        if towards is None or now_s - self._since_s < self.sustain_s:
            return None
        self._since_s = now_s
        if towards is Pool.PROMPT:
            return min(sides[Pool.TOKEN], key=lambda machine: machine.kv_tokens), towards
        return min(sides[Pool.PROMPT], key=lambda machine: machine.pending_prompt_tokens), towards

    def _short_side(self, alive: list[MachineLoad], prompt: list[MachineLoad], token: list[MachineLoad]) -> Pool | None:
        prompt_tokens = sum(machine.pending_prompt_tokens for machine in alive)
        kv_tokens = sum(machine.kv_tokens for machine in alive) - prompt_tokens
        capacities = [machine.kv_capacity_tokens for machine in token]
        if len(token) > 1 and prompt_tokens > self.max_prompt_tokens * len(prompt):
            return Pool.PROMPT if kv_tokens < self.min_kv_share * (sum(capacities) - max(capacities)) else None
        if len(prompt) > 1 and kv_tokens > self.max_kv_share * sum(capacities):
            return Pool.TOKEN if prompt_tokens < self.min_prompt_tokens * (len(prompt) - 1) else None
        return None


class Never:
    """Machines stay what they were bought for."""

    def choose(self, pools: Pools, now_s: float) -> None:
        return None


NEVER = Never()
