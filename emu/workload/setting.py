"""What a workload's settings may be. Each function returns the value, or raises WorkloadError naming key and value."""

import math
from numbers import Real

from emu.workload.workload import MAX_NUM_TOKENS, WorkloadError


def positive(key: str, value: float) -> float:
    if not (_is_number(value) and 0 < value < math.inf):
        raise WorkloadError(f"workload.{key}={value}: expected a number > 0")
    return float(value)


def positive_or_inf(key: str, value: float) -> float:
    if not (_is_number(value) and value > 0):
        raise WorkloadError(f"workload.{key}={value}: expected a number > 0, or inf")
    return float(value)


def not_negative(key: str, value: float) -> float:
    if not (_is_number(value) and 0 <= value < math.inf):
        raise WorkloadError(f"workload.{key}={value}: expected a number >= 0")
    return float(value)


def between(key: str, value: float, low: float, high: float) -> float:
    if not (_is_number(value) and low <= value <= high):
        raise WorkloadError(f"workload.{key}={value}: expected a number from {low:g} to {high:g}")
    return float(value)


def num_tokens(key: str, value: int) -> int:
    if not (_is_number(value) and 1 <= value <= MAX_NUM_TOKENS and value == int(value)):
        raise WorkloadError(f"workload.{key}={value}: expected a whole number from 1 to {MAX_NUM_TOKENS}")
    return int(value)


def one_of(key: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise WorkloadError(f"workload.{key}={value}: expected one of {', '.join(allowed)}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
