"""Numbers as the report writes them: a few digits, a unit, and a dash for what is not known."""

import math
from typing import NamedTuple

NONE = "–"
BINARY_UNITS = {30: "GiB", 20: "MiB", 10: "KiB", 0: "B"}


class TimeUnit(NamedTuple):
    """Seconds are shown as `seconds * per_s`, followed by `name`."""

    per_s: float
    name: str

    def text(self, seconds: float | None) -> str:
        """The number alone: one to three decimals, by its size."""
        if seconds is None or math.isnan(seconds):
            return NONE
        value = seconds * self.per_s
        if math.isinf(value):
            return "∞"
        return f"{value:,.{0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2}f}"


SECONDS, MILLISECONDS = TimeUnit(1.0, "s"), TimeUnit(1e3, "ms")


def unit_of(typical_s: float | None) -> TimeUnit:
    """Milliseconds where the typical value is below a second."""
    return MILLISECONDS if typical_s is None or abs(typical_s) < 1.0 else SECONDS


def run_time_unit(span_s: float) -> TimeUnit:
    """The unit of an axis over the run's time."""
    if span_s <= 1800:
        return SECONDS
    return TimeUnit(1 / 60, "min") if span_s <= 4 * 3600 else TimeUnit(1 / 3600, "h")


def duration(seconds: float | None) -> str:
    """A time with its unit, such as 12.3 ms."""
    unit = unit_of(seconds)
    return NONE if seconds is None or math.isnan(seconds) else f"{unit.text(seconds)} {unit.name}"


def count(value: float | None) -> str:
    """A whole number with separators; at most two decimals for what is not whole."""
    if value is None or math.isnan(value):
        return NONE
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:,.2f}"


def significant(value: float | None) -> str:
    """Three significant digits, with separators: 0.0123, 19.9, 70, 1,230."""
    if value is None or math.isnan(value):
        return NONE
    rounded = float(f"{value:.3g}")
    if not rounded or math.isinf(rounded):
        return "∞" if rounded else "0"
    text = f"{rounded:,.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"
    return text.rstrip("0").removesuffix(".") if "." in text else text


def size(num_bytes: float | None) -> str:
    """Bytes in decimal units."""
    if num_bytes is None:
        return NONE
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:,.{0 if num_bytes >= 100 * unit else 1}f} {name}"
    return f"{num_bytes:,.0f} B"


def binary_size(num_bytes: int) -> str:
    """Bytes in the largest binary unit of which they are a whole number."""
    power = next(power for power in (30, 20, 10, 0) if num_bytes % (1 << power) == 0)
    return f"{num_bytes >> power:,} {BINARY_UNITS[power]}"


def share(value: float | None) -> str:
    """A share of one in percent."""
    return NONE if value is None or math.isnan(value) else f"{100 * value:.{0 if 0.1 <= value <= 1 else 1}f} %"
