"""Deaths of machines on purpose."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any


class FaultError(ValueError):
    """A fault that cannot happen. The text is for the user."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Machine number `machine` dies `at_s` seconds after the run's start."""

    machine: int
    at_s: float


def parse_faults(faults: Iterable[Mapping[str, Any]], names: Iterable[str]) -> list[Fault]:
    """Read `[{machine: d0, at_s: 10}, ...]`. Raises FaultError naming the entry, its value and what is allowed."""
    by_name = {name: index for index, name in enumerate(names)}
    parsed = []
    for position, fault in enumerate(faults):
        place = f"faults[{position}]"
        if not isinstance(fault, Mapping) or set(fault) != {"machine", "at_s"}:
            raise FaultError(f"{place}={fault}: expected {{machine: NAME, at_s: SECONDS}}")
        name, at_s = fault["machine"], fault["at_s"]
        if not isinstance(name, str) or name not in by_name:
            raise FaultError(f"{place}.machine={name}: no such machine; there are {', '.join(by_name)}")
        if not isinstance(at_s, Real) or isinstance(at_s, bool) or not 0 <= float(at_s) < float("inf"):
            raise FaultError(f"{place}.at_s={at_s}: expected a number of seconds >= 0")
        parsed.append(Fault(by_name[name], float(at_s)))
    return parsed
