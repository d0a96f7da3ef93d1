"""The figures by which a distribution is told: mean, percentiles (numpy's linear interpolation) and maximum."""

import numpy as np

PERCENTILES = (50, 90, 99)
MIN_FOR_P99 = 100  # of fewer values, p99 is hardly more than their maximum


def distribution(values: np.ndarray, weights: np.ndarray | None = None) -> dict[str, float | None]:
    """{mean, p50, p90, p99, max} of `values`, each None where there is no value. NaN is no value.

    `weights` (int >= 1) tells how often each value occurred: the percentiles are exactly those of
    `np.percentile(np.repeat(values, weights), ...)`.
    """
    if weights is None:
        values = values[~np.isnan(values)]
    keys = ("mean", *(f"p{q}" for q in PERCENTILES), "max")
    if not len(values):
        return dict.fromkeys(keys)
    if weights is None:
        percentiles = np.percentile(values, PERCENTILES).tolist()
    else:
        percentiles = weighted_percentiles(values, weights, PERCENTILES)
    mean = np.average(values, weights=weights)
    return dict(zip(keys, (float(mean), *percentiles, float(values.max())), strict=True))


def percentile(values: np.ndarray, q: float) -> float:
    """The `q`-th percentile of at least one value, interpolated linearly: the one that `distribution` has."""
    return float(np.percentile(values, q))


def p99_name(number: int, what: str = "request") -> str:
    """What p99 is called where it is printed: `p99`, or `p99 of 29 requests` where they are few."""
    return f"p99{p99_mark(number, what)}"


def p99_mark(number: int, what: str = "request") -> str:
    """What follows a p99: ` of 29 requests` where they are few, else nothing."""
    return "" if number >= MIN_FOR_P99 else f" of {number} {what}{'s' if number != 1 else ''}"


def weighted_percentiles(values: np.ndarray, weights: np.ndarray, percentiles: tuple[float, ...]) -> list[float]:
    """`np.percentile(np.repeat(values, weights), percentiles)` to the bit, without the repetition."""
    order = np.argsort(values)
    num_up_to = weights[order].astype(np.int64)
    np.cumsum(num_up_to, out=num_up_to)
    num_values = int(num_up_to[-1])
    result = []
    for rank in (num_values - 1) * np.true_divide(percentiles, 100):
        low = int(rank)
        pair = order[np.searchsorted(num_up_to, (low, min(low + 1, num_values - 1)), side="right")]
        result.append(float(np.quantile(values[pair], rank - low)))  # numpy's own interpolation between two values
    return result
