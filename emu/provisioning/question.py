"""What is asked of a search: the least of something for a rate, or the highest rate, and under which caps."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from emu.config_error import ConfigError
from emu.provisioning.design import Design, Size

COST, POWER, MACHINES, THROUGHPUT = "cost", "power", "machines", "throughput"
UNITS = {COST: "$/h", POWER: "x DGX-A100", MACHINES: "machines"}
DEFAULT_MAX_MACHINES = 200


@dataclass(frozen=True, slots=True)
class Caps:
    """What a cluster may take at most: dollars an hour, rated power in DGX-A100s, machines."""

    max_dollars_per_hour: float = math.inf
    max_relative_power: float = math.inf
    max_machines: int = DEFAULT_MAX_MACHINES

    def __post_init__(self) -> None:
        for option, value in (
            ("--max-dollars-per-hour", self.max_dollars_per_hour),
            ("--max-power", self.max_relative_power),
            ("--max-machines", self.max_machines),
        ):
            if not value > 0:
                raise ConfigError(f"{option} {value:g}: expected a number > 0")

    def allow(self, design: Design, size: Size) -> bool:
        slack = 1 + 1e-9  # sums of prices are floats
        return (
            design.dollars_per_hour(size) <= self.max_dollars_per_hour * slack
            and design.relative_power(size) <= self.max_relative_power * slack
            and design.num_machines(size) <= self.max_machines
        )

    def check(self, design: Design) -> None:
        """Raises ConfigError where not even the smallest size of the design is allowed."""
        size = design.smallest
        if not self.allow(design, size):
            raise ConfigError(
                f"{design.name}: no size is within the caps ({self}); the smallest, {size}, takes "
                f"{design.num_machines(size)} machines, {design.dollars_per_hour(size):g} $/h and "
                f"{design.relative_power(size):g} times the power of a DGX-A100"
            )

    def __str__(self) -> str:
        values = (
            (self.max_dollars_per_hour, "$/h"),
            (self.max_relative_power, UNITS[POWER]),
            (self.max_machines, UNITS[MACHINES]),
        )
        return ", ".join(f"{value:g} {unit}" for value, unit in values if value < math.inf)


def amount(objective: str, design: Design, size: Size) -> float:
    """What is to be least: dollars an hour, rated power, or machines."""
    measure = {COST: design.dollars_per_hour, POWER: design.relative_power, MACHINES: design.num_machines}
    return float(measure[objective](size))


def largest_prompt_pool(caps: Caps, design: Design, num_token: int) -> int:
    """The most prompt machines that the caps allow beside `num_token` token machines; 0 where they allow none."""
    low, high = 0, caps.max_machines + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if caps.allow(design, Size(middle, num_token)) else (low, middle)
    return low


def all_sizes(caps: Caps, design: Design) -> Iterable[Size]:
    """Every size within the caps, by token machines."""
    for num_token in token_pools(caps, design):
        for num_prompt in range(1, largest_prompt_pool(caps, design, num_token) + 1):
            yield Size(num_prompt, num_token)


def token_pools(caps: Caps, design: Design) -> range:
    """The numbers of token machines that the caps allow beside one prompt machine."""
    if not design.is_split:
        return range(1)
    num_token = 1
    while caps.allow(design, Size(1, num_token + 1)):
        num_token += 1
    return range(1, num_token + 1)
