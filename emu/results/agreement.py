"""How well emulated runs of a workload agree with real ones of the same: errors of the figures, and request by request."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from emu.results.sweep_table import finished_summary

METRICS = ("ttft_s", "tpot_s", "e2e_s")
STATISTICS = ("mean", "p50", "p99")


class AgreementError(ValueError):
    """A run that cannot be compared. The text is for the user."""


@dataclass(frozen=True, slots=True, eq=False)
class RunResults:
    """What a run left: its summary, and of each of METRICS the seconds of each request, NaN where it did not finish."""

    summary: dict[str, Any]
    seconds: dict[str, np.ndarray]


def read_results(run_dir: Path) -> RunResults:
    """The results in the directory of a run. Raises AgreementError where the run did not come to its end."""
    from pyarrow import parquet

    summary = finished_summary(run_dir)
    if summary is None:
        raise AgreementError(f"{run_dir}: expected the directory of a run that has ended")
    columns = parquet.read_table(run_dir / "requests.parquet").to_pydict()
    finished = np.array(columns["status"]) == "finished"
    arrival_s, first_s, last_s, num_tokens = (
        np.where(finished, np.array(columns[name], float), np.nan)
        for name in ("arrival_s", "first_token_s", "last_token_s", "num_tokens_out")
    )
    num_gaps = np.where(num_tokens > 1, num_tokens - 1, np.nan)
    return RunResults(
        summary, {"ttft_s": first_s - arrival_s, "tpot_s": (last_s - first_s) / num_gaps, "e2e_s": last_s - arrival_s}
    )


def agreement(real: Sequence[RunResults], emulated: Sequence[RunResults]) -> dict[str, Any]:
    """Of each of METRICS, ready for JSON: the figures, and the correlation over the requests that finished in both.

    A figure has the `real` and the `emulated` value, medians over the runs; `error`, by how much of the real value the emulated
    one is larger; the ends `low` and `high` of the interval of the emulated runs, medians too, and whether it `covers` the real
    value. `correlation` is Pearson's, the median over pairs of runs in order. None where there is nothing to tell.
    """
    return {
        metric: {
            **{statistic: _figure(real, emulated, metric, statistic) for statistic in STATISTICS},
            "correlation": _median(
                [correlation(one.seconds[metric], other.seconds[metric]) for one, other in zip(real, emulated, strict=True)]
            ),
        }
        for metric in METRICS
    }


def correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Pearson's correlation over the entries that are not NaN in either; None where one of them does not vary."""
    both = ~np.isnan(one) & ~np.isnan(other)
    if not both.any() or np.ptp(one[both]) == 0 or np.ptp(other[both]) == 0:
        return None
    return float(np.corrcoef(one[both], other[both])[0, 1])


def _figure(
    real: Sequence[RunResults], emulated: Sequence[RunResults], metric: str, statistic: str
) -> dict[str, float | bool | None]:
    measured = _median([run.summary[metric][statistic] for run in real])
    predicted = _median([run.summary[metric][statistic] for run in emulated])
    intervals = [run.summary.get("interval", {}).get(metric, {}).get(statistic) or {} for run in emulated]
    low, high = (_median([interval.get(end) for interval in intervals]) for end in ("low", "high"))
    known = measured is not None
    return {
        "real": measured,
        "emulated": predicted,
        "error": (predicted - measured) / measured if known and predicted is not None else None,
        "low": low,
        "high": high,
        "covers": low <= measured <= high if known and low is not None and high is not None else None,
    }


def _median(values: Sequence[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return median(known) if known else None
