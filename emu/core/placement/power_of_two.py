"""The power of two choices: of two machines drawn at random, the less loaded one (Mitzenmacher, 2001)."""

from emu.core import setting
from emu.core.placement.policy import place_by
from emu.core.pools import MachineLoad, Pool, Pools
from emu.core.request import Request
from emu.core.seeding import random_stream


class PowerOfTwo:
    """Each phase goes to the one with fewer pending tokens of two different machines of its pool.

    They are drawn uniformly, from the stream `placement.power_of_two` of `seed`; equals go to the first drawn.
    """

    def __init__(self, seed: int) -> None:
        self._stream = random_stream(setting.whole("placement.seed", seed, 0), "placement.power_of_two")

    def place(self, request: Request, pools: Pools) -> tuple[MachineLoad, MachineLoad]:
        return place_by(lambda pool: self._choose(pool, pools), pools)

    def _choose(self, pool: Pool, pools: Pools) -> MachineLoad:
        machines = pools[pool]
        if len(machines) == 1:
            return machines[0]
        first = int(self._stream.integers(len(machines)))
        second = int(self._stream.integers(len(machines) - 1))
        second += second >= first
        return min(machines[first], machines[second], key=lambda machine: machine.pending_tokens)
