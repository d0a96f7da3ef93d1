"""A cluster design whose size is to be found: its settings, its hardware, and what a size of it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from emu.build import compose
from emu.config_error import ConfigError
from emu.core.specs import HardwareSpec
from emu.provisioning.probe import plan_probe
from emu.results.slowdown import lone_times_s

DESIGNS = ("baseline_a100", "baseline_h100", "splitwise_aa", "splitwise_hh", "splitwise_ha", "splitwise_hhcap")
POOLS, ONE_POOL = ("num_prompt", "num_token"), ("num_machines",)
# For where to look first: how busy prompt machines may be, and how many requests a token machine decodes at once.
PREFILL_LOAD, DECODE_BATCH = 0.8, 24


class Size(NamedTuple):
    """How many machines of each pool. A design without pools has all its machines in `num_prompt`, and 0 in `num_token`."""

    num_prompt: int
    num_token: int

    def __str__(self) -> str:
        return f"{self.num_prompt}P{self.num_token}T" if self.num_token else str(self.num_prompt)

    def covers(self, other: "Size") -> bool:
        """Whether no pool of `other` is larger."""
        return self.num_prompt >= other.num_prompt and self.num_token >= other.num_token


@dataclass(frozen=True, slots=True)
class Design:
    """The option `name` of conf/cluster with further overrides. `keys` are the settings of a size, `hardware` one for each."""

    name: str
    further: tuple[str, ...]
    keys: tuple[str, ...]
    hardware: tuple[HardwareSpec, ...]

    @classmethod
    def of(cls, name: str, further: Sequence[str], rate_rps: float) -> "Design":
        """The design as configured. Raises ConfigError for one that has no size, or cannot be run at `rate_rps`."""
        cluster = compose([*further, f"cluster={name}"]).cluster
        keys = next((keys for keys in (POOLS, ONE_POOL) if all(key in cluster for key in keys)), None)
        if keys is None:
            allowed = f"{' and '.join(POOLS)}, or with {ONE_POOL[0]}"
            raise ConfigError(
                f"--designs {name}: its size is no number; expected a cluster with {allowed}: {', '.join(DESIGNS)}"
            )
        plan = plan_probe([*further, f"cluster={name}", *(f"cluster.{key}=1" for key in keys)], rate_rps)
        hardware = tuple(machine.hardware for machine in plan.run_config.cluster.machines)
        return cls(name, tuple(further), keys, hardware)

    @property
    def smallest(self) -> Size:
        return Size(1, 1 if self.is_split else 0)

    @property
    def is_split(self) -> bool:
        return self.keys == POOLS

    def overrides(self, size: Size) -> list[str]:
        """Those that make this cluster, without the rate."""
        numbers = (f"cluster.{key}={number}" for key, number in zip(self.keys, size, strict=False))
        return [*self.further, f"cluster={self.name}", *numbers]

    def dollars_per_hour(self, size: Size) -> float:
        return sum(number * spec.price_per_hour for number, spec in zip(size, self.hardware, strict=False))

    def relative_power(self, size: Size) -> float:
        """Rated power, in DGX-A100s."""
        return sum(number * spec.relative_power for number, spec in zip(size, self.hardware, strict=False))

    def num_machines(self, size: Size) -> int:
        return sum(size)

    def needed(self, rate_rps: float) -> tuple[float, float]:
        """How many machines of each pool the rate may need: where to look first, by the work of each request alone.

        No search depends on how good it is, but in how many runs it takes.
        """
        plan = plan_probe(self.overrides(self.smallest), rate_rps)
        workload, machines = plan.run_config.workload, plan.run_config.cluster.machines
        prefill_s, decode_s = (
            lone_times_s(machines[index].timing, workload.prompt_tokens, workload.output_tokens)[phase].sum()
            for phase, index in enumerate((0, -1))
        )
        num_prompt = float(prefill_s) / workload.arrival_span_s / PREFILL_LOAD
        num_token = float(decode_s) / workload.arrival_span_s / DECODE_BATCH
        return (num_prompt, num_token) if self.is_split else (num_prompt + num_token, 0.0)

    def guess_rps(self, size: Size, at_rps: float = 100.0) -> float:
        """The rate that a size may carry; see `needed`."""
        needed = zip(size, self.needed(at_rps), strict=True)
        return at_rps * min(number / need for number, need in needed if need)

    def parse(self, text: str) -> Size:
        """A size as `27P3T`, or as `40` where there are no pools. Raises ConfigError."""
        numbers = text.upper().removesuffix("T").split("P") if self.is_split else [text]
        if len(numbers) != len(self.keys) or not all(number.isdecimal() and int(number) > 0 for number in numbers):
            raise ConfigError(f"--compare {self.name}={text}: expected a size such as {Size(27, 3) if self.is_split else 40}")
        return Size(*map(int, numbers), *([] if self.is_split else [0]))
