"""The run's time cut into equal bins: what happened in each, at a cost of a few passes over the arrays."""

import numpy as np

from emu.results.report.scale import nice_step


class Timeline:
    """`num_bins` equal bins from 0 to `end_s` > 0. Whatever is told of later times counts in the last bin."""

    def __init__(self, end_s: float, num_bins: int) -> None:
        self.end_s = end_s
        self.num_bins = num_bins
        self.width_s = end_s / num_bins

    @classmethod
    def of_round_bins(cls, end_s: float, max_num_bins: int) -> "Timeline":
        """Bins of a round width (1, 2, 2.5, 5 x 10^k seconds); the last one may reach past `end_s`."""
        width_s = nice_step(end_s, max_num_bins)
        num_bins = max(1, int(np.ceil(end_s / width_s - 1e-9)))
        return cls(num_bins * width_s, num_bins)

    @property
    def edges_s(self) -> np.ndarray:
        return np.linspace(0.0, self.end_s, self.num_bins + 1)

    @property
    def middles_s(self) -> np.ndarray:
        return (np.arange(self.num_bins) + 0.5) * self.width_s

    def index(self, times_s: np.ndarray) -> np.ndarray:
        return np.clip(times_s / self.width_s, 0, self.num_bins - 1).astype(np.intp)

    def sums(self, times_s: np.ndarray, amounts: np.ndarray | float = 1.0) -> np.ndarray:
        """Sum of `amounts` in each bin. Times that are NaN never happened."""
        times_s, amounts = _happened(times_s, amounts)
        return np.bincount(self.index(times_s), amounts, self.num_bins)

    def level(self, times_s: np.ndarray, changes: np.ndarray | float) -> np.ndarray:
        """Time-average in each bin of a level that starts at 0 and changes by `changes` at `times_s`."""
        times_s, changes = _happened(times_s, changes)
        index = self.index(times_s)
        rest_of_bin = np.clip(index + 1 - times_s / self.width_s, 0.0, 1.0)
        change = np.bincount(index, changes, self.num_bins)
        level = np.bincount(index, changes * rest_of_bin, self.num_bins) + np.cumsum(change) - change
        return np.where(np.abs(level) < 1e-9, 0.0, level)

    def occupancy(self, start_s: np.ndarray, end_s: np.ndarray, amounts: np.ndarray | float = 1.0) -> np.ndarray:
        """Time-average in each bin of the `amounts` whose interval is open; one without an end lasts to the run's."""
        amounts = np.broadcast_to(amounts, np.shape(start_s))
        started = ~np.isnan(start_s)
        ended = started & ~np.isnan(end_s)
        times_s = np.concatenate([start_s[started], end_s[ended]])
        return self.level(times_s, np.concatenate([amounts[started], -amounts[ended]]))

    def highest(self, times_s: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The largest of `values` in each bin, NaN where there is none."""
        highest = np.full(self.num_bins, -np.inf)
        np.maximum.at(highest, self.index(times_s), values)
        return np.where(np.isneginf(highest), np.nan, highest)


def _happened(times_s: np.ndarray, amounts: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    happened = ~np.isnan(times_s)
    return times_s[happened], np.broadcast_to(amounts, np.shape(times_s))[happened]
