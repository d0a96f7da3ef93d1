"""The cumulative curve of a distribution, of at most some hundred points whatever its size."""

from dataclasses import dataclass

import numpy as np

from emu.results.distribution import percentile

# Where a curve of many values is drawn: about every half percent, finer towards the ends, where a tail is read.
SHARES = np.concatenate(
    [[1e-4, 1e-3], np.linspace(0.002, 0.99, 180), 1 - np.geomspace(0.0099, 1e-6, 60), [1.0]],
)


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Finite values in increasing order and the share of the distribution at or below each."""

    values: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, weights: np.ndarray | None = None) -> "Curve":
        """Of `values`, each counted `weights` times (once without). What is not finite is left out."""
        finite = np.isfinite(values) if weights is None else np.isfinite(values) & (weights > 0)
        values = values[finite]
        if weights is None:
            return cls(np.sort(values), np.arange(1, len(values) + 1) / max(1, len(values)))
        order = np.argsort(values)
        cumulative = np.cumsum(weights[finite][order], dtype=np.float64)
        return cls(values[order], cumulative / cumulative[-1] if len(cumulative) else cumulative)

    def __len__(self) -> int:
        return len(self.values)

    def quantile(self, share: float) -> float:
        """The smallest value at or below which at least `share` of the distribution lies."""
        return float(self.values[min(len(self) - 1, int(np.searchsorted(self.shares, share * (1 - 1e-12))))])

    def percentile(self, q: float) -> float:
        """The `q`-th percentile as every page, table and verdict has it. For a curve without weights."""
        return percentile(self.values, q)

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Values and shares of the curve: its exact steps where they are few, else its quantiles."""
        if len(self) > len(SHARES):
            index = np.minimum(np.searchsorted(self.shares, SHARES * (1 - 1e-12)), len(self) - 1)
            return self.values[index], self.shares[index]
        below = np.concatenate([[0.0], self.shares[:-1]])
        return np.repeat(self.values, 2), np.stack([below, self.shares], axis=1).ravel()
