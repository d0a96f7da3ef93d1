"""Times in a trace: read without losing a digit, and the unit that they are in."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from statistics import median
from typing import Any

from emu.workload.traces.row import Time, Unexpected
from emu.workload.workload import WorkloadError

PER_S = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
UNITS = ("auto", *PER_S)
MAX_TIME = 10**22
EPOCH_S = (10**9, 42 * 10**8)  # an absolute time is a date from 2001 to 2103, in whichever unit: no two ranges overlap
CHOICE = "expected workload.time_unit=s, ms, us or ns"
RESOLUTION_S = 1e-6
MAX_GAP_S, MIN_GAP_S = 60, Decimal("1e-5")
EXACT_FLOAT = 10**16  # below it, a float is written without an exponent
DATE = re.compile(r"(\d{4}-\d\d-\d\d(?:[ T]\d\d(?::\d\d(?::\d\d)?)?)?)(\.\d*)?[ ]?(Z|[+-]\d\d(?::?\d\d)?)?", re.ASCII)


def decimal_time(field: str, text: str) -> Time:
    """The number that `text` writes, exactly. Raises Unexpected, ValueError or ArithmeticError."""
    if not text.isascii() or "_" in text:
        raise ValueError
    return _in_range(field, Decimal(text))


def json_time(field: str, value: Any) -> Time:
    """A JSON number as it is written; true and "12" are none."""
    if type(value) is int or type(value) is Decimal:
        return _in_range(field, value)
    raise TypeError


def _in_range(field: str, time: Time) -> Time:
    if (type(time) is Decimal and time.is_nan()) or not 0 <= time < MAX_TIME:
        raise Unexpected(f"{field} to be a time >= 0")
    return time


class DateReader:
    """Reads dates such as 2023-11-16 18:17:03.9799605+00:00 as seconds since the year 1, UTC where no zone is given."""

    def __init__(self) -> None:
        self._seconds: dict[str, int] = {}

    def __call__(self, field: str, text: str) -> Time:
        found = DATE.fullmatch(text.strip(" \t"))
        if not found:
            raise ValueError
        head, fraction, zone = found.groups()
        whole_s = self._seconds.get(head)
        if whole_s is None:
            if len(self._seconds) > 1000:
                self._seconds.clear()
            whole_s = self._seconds[head] = (datetime.fromisoformat(head) - datetime.min) // timedelta(seconds=1)
        if zone and zone != "Z":
            whole_s -= _offset_s(zone)
        return Decimal(f"{whole_s}{fraction}") if fraction else whole_s


def _offset_s(zone: str) -> int:
    digits = zone[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 23 or minutes > 59:
        raise ValueError
    return (hours * 3600 + minutes * 60) * (-1 if zone[0] == "-" else 1)


@dataclass(frozen=True, slots=True)
class FixedUnit:
    """A format whose times are in `unit`: `date` or one of PER_S. `needs_whole`: a fraction makes the unit uncertain."""

    unit: str
    needs_whole: bool = False


@dataclass(frozen=True, slots=True)
class TimeBase:
    """How times of a file become seconds: `per_s` of its units are a second; absolute ones count from the first row."""

    unit: str
    is_absolute: bool
    needs_whole: bool = False

    @property
    def per_s(self) -> int:
        return PER_S.get(self.unit, 1)

    def check(self, field: str, time: Time) -> None:
        """Raises Unexpected for a fraction where only whole numbers make the unit certain."""
        if self.needs_whole and type(time) is Decimal and time % 1:
            raise Unexpected(f"{field} to be a whole number of {self.unit}, or else workload.time_unit=s, ms, us or ns")


def time_base(path: Any, field: str, fixed: FixedUnit | None, asked: str, times: Sequence[Time]) -> TimeBase:
    """The unit of a file whose first rows have these times. Raises WorkloadError where it is ambiguous.

    `asked` is workload.time_unit: what a format fixes cannot be asked otherwise.
    """
    place = f"workload.path={path}"
    if fixed and fixed.unit == "date":
        if asked != "auto":
            raise WorkloadError(f"workload.time_unit={asked}: the times of {path} are dates; expected workload.time_unit=auto")
        return TimeBase("date", is_absolute=True)
    if fixed and not fixed.needs_whole and asked not in ("auto", fixed.unit):
        raise WorkloadError(
            f"workload.time_unit={asked}: the times of {path} are in {fixed.unit} by its format; "
            f"expected workload.time_unit=auto or {fixed.unit}"
        )
    epoch_unit = next((unit for unit, per_s in PER_S.items() if EPOCH_S[0] <= Decimal(times[0]) / per_s < EPOCH_S[1]), None)
    unit = asked if asked != "auto" else fixed.unit if fixed else epoch_unit or "s"
    base = TimeBase(unit, unit == epoch_unit, needs_whole=asked == "auto" and fixed is not None and fixed.needs_whole)
    if epoch_unit not in (None, unit) and asked == "auto":
        choice = CHOICE if base.needs_whole else f"expected {unit}"
        raise WorkloadError(f"{place}: {field} {times[0]} is a date in {epoch_unit}, but this format has {unit}; {choice}")
    if base.needs_whole and any(type(time) is Decimal and time % 1 for time in times):
        raise WorkloadError(f"{place}: {field} has fractions, so that {unit} is not certain; {CHOICE}")
    if fixed is None and asked == "auto":
        _check_gaps(place, field, base, times)
    if base.is_absolute:
        _check_digits(place, field, base, times)
    return base


def _check_gaps(place: str, field: str, base: TimeBase, times: Sequence[Time]) -> None:
    gaps = [abs(Decimal(after) - Decimal(before)) for before, after in pairwise(times) if after != before]
    if gaps and not MIN_GAP_S <= median(gaps) / base.per_s <= MAX_GAP_S:
        raise WorkloadError(
            f"{place}: {field} grows by {float(median(gaps)):g} from row to row at the median, "
            f"which is unlikely in {base.unit}; {CHOICE}"
        )


def _check_digits(place: str, field: str, base: TimeBase, times: Sequence[Time]) -> None:
    """Refuse dates whose last digits a spreadsheet dropped: 1.787E+12."""
    for time in times:
        exponent = time.as_tuple().exponent if isinstance(time, Decimal) else 0
        if isinstance(exponent, int) and exponent > 0 and time < EXACT_FLOAT:
            lost_s = Decimal(1).scaleb(exponent) / base.per_s
            if lost_s > RESOLUTION_S:
                raise WorkloadError(
                    f"{place}: {field} {time} resolves only {float(lost_s):g} s; expected all digits of it, to the microsecond"
                )


def check_resolution(place: str, field: str, latest_s: float) -> None:
    """Raises WorkloadError where seconds as doubles cannot tell microseconds apart at the end of the trace."""
    if math.ulp(latest_s) > RESOLUTION_S:
        raise WorkloadError(
            f"{place}: {field} spans {latest_s:g} s, at which times resolve {math.ulp(latest_s):.2g} s; "
            "expected 1 us at least: a shorter trace, or another workload.time_unit"
        )
