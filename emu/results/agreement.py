"""How well emulated runs of a workload agree with real ones of the same: errors of the figures, and request by request."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from emu.results.distribution import distribution
from emu.results.sweep_table import finished_summary

METRICS = ("ttft_s", "tpot_s", "e2e_s")
STATISTICS = ("mean", "p50", "p99")


class AgreementError(ValueError):
    """A run that cannot be compared. The text is for the user."""


@dataclass(frozen=True, slots=True, eq=False)
class RunResults:
    """What a run left: its summary, and of each of METRICS the seconds of each request, NaN where it does not count."""

    summary: dict[str, Any]
    seconds: dict[str, np.ndarray]


def read_results(run_dir: Path, warmup_s: float) -> RunResults:
    """The results in the directory of a run, of requests that arrived at `warmup_s` or later. Raises AgreementError where it
    did not come to its end."""
    from pyarrow import parquet

    summary = finished_summary(run_dir)
    if summary is None:
        raise AgreementError(f"{run_dir}: expected the directory of a run that has ended")
    columns = parquet.read_table(run_dir / "requests.parquet").to_pydict()
    counts = (np.array(columns["status"]) == "finished") & (np.array(columns["arrival_s"]) >= warmup_s)
    arrival_s, first_s, last_s, num_tokens = (
        np.where(counts, np.array(columns[name], float), np.nan)
        for name in ("arrival_s", "first_token_s", "last_token_s", "num_tokens_out")
    )
    num_gaps = np.where(num_tokens > 1, num_tokens - 1, np.nan)
    return RunResults(
        summary, {"ttft_s": first_s - arrival_s, "tpot_s": (last_s - first_s) / num_gaps, "e2e_s": last_s - arrival_s}
    )


def agreement(real: Sequence[RunResults], emulated: Sequence[RunResults]) -> dict[str, Any]:
    """Of each of METRICS, ready for JSON: the figures, and the correlation over the requests that finished in both.

    A request's seconds are its median over the runs of a kind, so that what one run met, such as a pause of the host, does not
    count. A figure has the `real` and the `emulated` value, statistics over the requests; `error`, by how much of the real
    value the emulated one is larger, and `errors`, the same of each real run and its emulated one alone; the ends `low` and
    `high` of the interval of the emulated runs, medians over them, and whether it `covers` the real value. `correlation` is
    Pearson's. None where there is nothing to tell. `requests` is how many a percentile is of, in the kind that has fewer.
    """
    return {metric: _of_metric(real, emulated, metric) for metric in METRICS}


def _of_metric(real: Sequence[RunResults], emulated: Sequence[RunResults], metric: str) -> dict[str, Any]:
    typical = [_typical([run.seconds[metric] for run in runs]) for runs in (real, emulated)]
    measured, predicted = (distribution(seconds) for seconds in typical)
    alone = [[distribution(run.seconds[metric]) for run in pair] for pair in zip(real, emulated, strict=True)]
    figures = {}
    for statistic in STATISTICS:
        intervals = [run.summary.get("interval", {}).get(metric, {}).get(statistic) or {} for run in emulated]
        low, high = (_median([interval.get(end) for interval in intervals]) for end in ("low", "high"))
        value = measured[statistic]
        figures[statistic] = {
            "real": value,
            "emulated": predicted[statistic],
            "error": _error(value, predicted[statistic]),
            "errors": [_error(one[statistic], other[statistic]) for one, other in alone],
            "low": low,
            "high": high,
            "covers": None if value is None or low is None or high is None else low <= value <= high,
        }
    num_requests = min(int(np.count_nonzero(~np.isnan(seconds))) for seconds in typical)
    return {**figures, "correlation": correlation(*typical), "requests": num_requests}


def _typical(seconds: Sequence[np.ndarray]) -> np.ndarray:
    """Of each request the median over the runs in which it finished, NaN where it finished in none."""
    of_runs = np.array(seconds)
    finished = ~np.isnan(of_runs).all(axis=0)
    typical = np.full(of_runs.shape[1], np.nan)
    typical[finished] = np.nanmedian(of_runs[:, finished], axis=0)
    return typical


def _error(measured: float | None, predicted: float | None) -> float | None:
    return None if measured is None or predicted is None else predicted / measured - 1.0


def correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Pearson's correlation over the entries that are not NaN in either; None where one of them does not vary."""
    both = ~np.isnan(one) & ~np.isnan(other)
    if not both.any() or np.ptp(one[both]) == 0 or np.ptp(other[both]) == 0:
        return None
    return float(np.corrcoef(one[both], other[both])[0, 1])


def _median(values: Sequence[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return median(known) if known else None
