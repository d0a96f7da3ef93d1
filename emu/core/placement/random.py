"""Uniformly random machines."""

from emu.core import setting
from emu.core.placement.policy import place_by
from emu.core.pools import MachineLoad, Pools
from emu.core.request import Request
from emu.core.seeding import random_stream


class Random:
    """Each phase goes to a machine of its pool drawn uniformly, from the stream `placement.random` of `seed`."""

    def __init__(self, seed: int) -> None:
        self._stream = random_stream(setting.whole("placement.seed", seed, 0), "placement.random")

    def place(self, request: Request, pools: Pools) -> tuple[MachineLoad, MachineLoad]:
        return place_by(lambda pool: pools[pool][self._stream.integers(len(pools[pool]))], pools)
