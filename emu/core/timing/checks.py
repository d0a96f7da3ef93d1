"""What the figures of a timing may be. Each function raises SettingError, naming the key and the place in its list."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from emu.core import setting
from emu.core.setting import SettingError

MIN_S, MAX_S = 1e-9, 1e6  # of a pass: a nanosecond to eleven days. Beyond, sums of them neither advance nor stay finite.
MAX_SEQS = 1_000_000  # of a decode step


def seconds(key: str, value: float) -> float:
    """A time of a pass or step."""
    return setting.between(key, value, MIN_S, MAX_S)


def cost_s(key: str, value: float) -> float:
    """Seconds a token, pair or sequence, which may be nothing."""
    return setting.between(key, value, 0, MAX_S)


def sizes(key: str, values: Sequence[float], high: int = setting.MAX_WHOLE, min_points: int = 2) -> None:
    """Ascending whole numbers from 1: the tokens or sequences at which something is known."""
    _listed(key, values, min_points)
    for i, value in enumerate(values):
        setting.whole(f"{key}[{i}]", value, 1, high)
    for i, (before, value) in enumerate(pairwise(values), 1):
        if value <= before:
            raise SettingError(f"{key}[{i}]={value}: does not ascend; expected more than {before}, the one before")


def as_many(key: str, values: Sequence[float], sizes_key: str, num: int) -> None:
    """One value for each of the `num` entries of `sizes_key`."""
    _listed(key, values, 0)
    if len(values) != num:
        raise SettingError(f"{key}={list(values)}: {len(values)} numbers; expected {num}, one for each of {sizes_key}")


def curve(
    place: str, sizes_name: str, x: Sequence[float], name: str, y: Sequence[float], high: int = setting.MAX_WHOLE
) -> None:
    """The times `y`, figures `name`, at the sizes `x`, figures `sizes_name`. Whether it may fall is the caller's business."""
    sizes(f"{place}.{sizes_name}", x, high)
    as_many(f"{place}.{name}", y, sizes_name, len(x))
    for i, value in enumerate(y):
        seconds(f"{place}.{name}[{i}]", value)


def does_not_fall(key: str, values: Sequence[float], first: int = 1) -> None:
    """No value from index `first` on is less than the one before."""
    for i in range(first, len(values)):
        if values[i] < values[i - 1]:
            raise SettingError(f"{key}[{i}]={values[i]}: falls; expected at least {values[i - 1]}, the one before")


def _listed(key: str, values: Any, min_points: int) -> None:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise SettingError(f"{key}={values}: expected a list of numbers")
    if len(values) < min_points:
        raise SettingError(f"{key}={list(values)}: expected a list of {min_points} numbers or more")
