"""One axis of a chart: from data to pixels, and where its ticks stand."""

import math
from dataclasses import dataclass, replace

import numpy as np

NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
SUFFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def nice_step(span: float, num_steps: int) -> float:
    """The smallest of 1, 2, 2.5 and 5 x 10^k that divides `span` > 0 into at most `num_steps` steps."""
    rough = span / num_steps
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor for factor in NICE if factor * power >= rough * (1 - 1e-9)) * power


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps data to pixels: `low`..`high` to `start_px`..`end_px`, evenly or, with `log`, evenly in the logarithm.

    `low` and `high` are as the axis shows them: `per_unit` times the data, such as 1000 for seconds shown as milliseconds.
    """

    low: float
    high: float
    start_px: float
    end_px: float
    log: bool = False
    per_unit: float = 1.0

    def rounded(self) -> "Scale":
        """The same with round numbers at both ends, from 0 where `low` is near it; from 0 to 1 where there is nothing."""
        if not self.high > 0:
            return replace(self, low=0.0, high=1.0, log=False)
        if self.log:
            return replace(self, low=_round_log(self.low, up=False), high=_round_log(self.high * 1.001, up=True))
        low = self.low if 0.4 * self.high < self.low < 0.99 * self.high else 0.0
        step = nice_step(self.high - low, 5)
        return replace(self, low=step * math.floor(low / step + 1e-9), high=step * math.ceil(self.high / step - 1e-9))

    def pixels(self, data: np.ndarray) -> np.ndarray:
        """Pixels of `data`; what lies outside the axis is drawn at its end."""
        values = np.clip(data * self.per_unit, self.low, self.high)
        low, high = self.low, self.high
        if self.log:
            values, low, high = np.log(values), math.log(low), math.log(high)
        return self.start_px + (values - low) * ((self.end_px - self.start_px) / (high - low))

    def ticks(self, num_labels: int) -> list[tuple[float, str]]:
        """Places in pixels with their labels, of which at most `num_labels` are not empty."""
        return self._log_ticks(num_labels) if self.log else self._linear_ticks(num_labels)

    def _linear_ticks(self, num_labels: int) -> list[tuple[float, str]]:
        step = nice_step(self.high - self.low, num_labels - 1)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        values = [index * step for index in range(first, last + 1)]
        divisor, suffix = next(((size, suffix) for size, suffix in SUFFIXES if values[-1] >= 10 * size), (1.0, ""))
        return self._placed(values, [f"{value / divisor:,.10g}{suffix if value else ''}" for value in values])

    def _log_ticks(self, num_labels: int) -> list[tuple[float, str]]:
        """Ticks at every digit of every decade; labels at 1, 2 and 5 where there is room, else at whole decades."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        places = [(digit, power) for power in decades for digit in range(1, 10)]
        places = [(d, p) for d, p in places if self.low * (1 - 1e-9) <= d * 10.0**p <= self.high * (1 + 1e-9)]
        labelled = [(d, p) for d, p in places if d in (1, 2, 5)]
        if len(labelled) > num_labels:
            labelled = [(d, p) for d, p in labelled if d == 1]
            labelled = labelled[:: math.ceil(len(labelled) / num_labels)]
        labels = [f"{d * 10.0**p:,.10g}" if (d, p) in labelled else "" for d, p in places]
        return self._placed([d * 10.0**p for d, p in places], labels)

    def _placed(self, values: list[float], labels: list[str]) -> list[tuple[float, str]]:
        return list(zip(self.pixels(np.array(values) / self.per_unit).tolist(), labels, strict=True))


@dataclass(frozen=True, slots=True)
class TailScale:
    """Maps shares to pixels: evenly from 0 to 0.9, from there evenly in the logarithm of what is left, to 0.999 and above.

    The style's script takes pixels back to shares by the same constants.
    """

    start_px: float
    end_px: float
    low: float = 0.0
    high: float = 100.0

    def pixels(self, data: np.ndarray) -> np.ndarray:
        """Pixels of shares of one."""
        shares = np.clip(data, 0.0, 1.0)
        tail = 0.6 + 0.2 * (-np.log10(np.maximum(1 - shares, 1e-3)) - 1)
        return self.start_px + np.where(shares < 0.9, shares / 1.5, tail) * (self.end_px - self.start_px)

    def ticks(self, num_labels: int) -> list[tuple[float, str]]:
        """Places in pixels with their labels, in percent."""
        labels = ("0", "25", "50", "75", "90", "99", "≥ 99.9")
        shares = np.array([0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999])
        return list(zip(self.pixels(shares).tolist(), labels, strict=True))


def _round_log(value: float, up: bool) -> float:
    """The next of 1, 2 and 5 x 10^k at or above `value`, or at or below it."""
    power = 10.0 ** math.floor(math.log10(value))
    if up:
        return next(factor for factor in (1, 2, 5, 10) if factor * power >= value * (1 - 1e-9)) * power
    return next(factor for factor in (5, 2, 1) if factor * power <= value * (1 + 1e-9)) * power
