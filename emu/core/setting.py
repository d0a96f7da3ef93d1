"""What a setting may be. Each function returns the value, or raises SettingError naming the key and the value.

A key is given in full, as the user writes it: `workload.rate_rps`.
"""

import math
import re
from collections.abc import Callable
from numbers import Real

MAX_WHOLE = 2**31 - 1
# Beyond these, sums, products and quotients of settings no longer stay finite and times no longer advance.
LEAST, MOST = 1e-9, 1e18
MOST_S = 1e9  # thirty years
LEAST_PERIOD_S = 1e-4  # of what is done again and again
LEAST_BYTES_PER_S = 1.0
BINARY_UNITS = {None: 0, "KiB": 10, "MiB": 20, "GiB": 30}


class SettingError(ValueError):
    """A setting that cannot be used. The text is for the user."""


class MissingExtra(SettingError):
    """A setting that needs an extra of this project that is not installed: `extra` is its name."""

    def __init__(self, text: str, extra: str) -> None:
        super().__init__(text)
        self.extra = extra


def positive(key: str, value: float, least: float = LEAST, most: float = MOST) -> float:
    _checked(key, value, lambda x: 0 < x < math.inf, "a number > 0")
    return between(key, value, least, most)


def positive_or_inf(key: str, value: float) -> float:
    _checked(key, value, lambda x: x > 0, "a number > 0, or inf")
    expected = f"a number from {LEAST:g} to {MOST:g}, or inf"
    return float(_checked(key, value, lambda x: LEAST <= x <= MOST or x == math.inf, expected))


def not_negative(key: str, value: float, least: float = LEAST, most: float = MOST) -> float:
    """A number that is 0 or from `least` to `most`."""
    _checked(key, value, lambda x: 0 <= x < math.inf, "a number >= 0")
    return float(_checked(key, value, lambda x: x == 0 or least <= x <= most, f"0, or a number from {least:g} to {most:g}"))


def seconds(key: str, value: float) -> float:
    """How long something lasts, at least a nanosecond."""
    return positive(key, value, most=MOST_S)


def seconds_or_zero(key: str, value: float) -> float:
    """How long something lasts, which may be no time at all."""
    return not_negative(key, value, most=MOST_S)


def period_s(key: str, value: float) -> float:
    """After how many seconds something is done again."""
    return positive(key, value, LEAST_PERIOD_S, MOST_S)


def period_s_or_zero(key: str, value: float) -> float:
    """After how many seconds something is done again, or 0, which is a case of its own."""
    return not_negative(key, value, LEAST_PERIOD_S, MOST_S)


def bytes_per_s(key: str, value: float) -> float:
    return positive(key, value, LEAST_BYTES_PER_S)


def between(key: str, value: float, low: float, high: float) -> float:
    return float(_checked(key, value, lambda x: low <= x <= high, f"a number from {low:g} to {high:g}"))


def whole(key: str, value: float, low: int, high: int = MAX_WHOLE) -> int:
    expected = f"a whole number from {low} to {high}"
    return int(_checked(key, value, lambda x: low <= x <= high and x == int(x), expected))


def size_bytes(key: str, text: str) -> int:
    """Bytes, from text such as 65536, 64KiB, 1MiB or 1GiB."""
    found = re.fullmatch(r"(\d+)([KMG]iB)?", text)
    if not found or not int(found[1]):
        raise SettingError(f"{key}={text}: expected a size > 0 such as 65536, 64KiB, 1MiB or 1GiB")
    return int(found[1]) << BINARY_UNITS[found[2]]


def flag(key: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise SettingError(f"{key}={value}: expected true or false")
    return value


def one_of(key: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise SettingError(f"{key}={value}: expected one of {', '.join(allowed)}")
    return value


def _checked(key: str, value: float, is_allowed: Callable[[float], bool], expected: str) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not is_allowed(value):
        raise SettingError(f"{key}={value}: expected {expected}")
    return value
