"""A sweep as curves: one a design, each a figure of its runs against the load."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from emu.results.sweep_table import FINISHED, illustration_of, is_usable

LOADS = ("workload.rate_rps", "workload.rate_scale")
SEED = "seed"


class SweepError(ValueError):
    """A sweep that cannot be shown as asked. The text is for the user."""


@dataclass(frozen=True, slots=True)
class SweepCurve:
    """The runs of one design, those of the same load (with other seeds) together, in order of load.

    The figures of an `is_illustrative` one may be compared with those of others like it alone.
    """

    name: str
    loads: tuple[float, ...]
    runs: tuple[tuple[Mapping[str, Any], ...], ...]
    is_illustrative: bool = False

    def values(self, figure: str) -> np.ndarray:
        """The mean of `figure` over the seeds at each load; NaN unless every run there may be compared and has it."""
        return np.array([_mean(runs, figure) if all(map(is_usable, runs)) else np.nan for runs in self.runs])

    def refused(self, figure: str) -> list[tuple[float, float]]:
        """(load, mean of `figure`) where the runs ended, and yet one may not be compared: INVALID or SATURATED."""
        points = [
            (load, _mean(runs, figure))
            for load, runs in zip(self.loads, self.runs, strict=True)
            if not all(map(is_usable, runs))
        ]
        return [(load, value) for load, value in points if not np.isnan(value)]

    def highest_load_within_slos(self) -> float | None:
        """The highest load up to which every run may be compared and meets all its objectives; None where there is none."""
        highest = None
        for load, runs in zip(self.loads, self.runs, strict=True):
            if not all(is_usable(run) and run.get("slo.met") for run in runs):
                break
            highest = load
        return highest

    @property
    def highest_load_text(self) -> str:
        """That load as it is printed: `4`, `none`, or `≥ 8 (highest tried)` where none was tried that does not do."""
        highest = self.highest_load_within_slos()
        if highest is None:
            return "none"
        return f"≥ {highest:g} (highest tried)" if highest == self.loads[-1] else f"{highest:g}"


def settings_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was set, of which all is not the same in all rows: their columns from `run` to `status`."""
    names = list(rows[0])
    return [name for name in names[1 : names.index("status")] if len({str(row[name]) for row in rows}) > 1]


def load_of(rows: Sequence[Mapping[str, Any]], wanted: str | None = None) -> str | None:
    """The setting that curves are drawn against: `wanted`, else the rate, else the only other number that varies; None where
    there is none. Raises SweepError where `wanted` is none of these."""
    numbers = [name for name in settings_of(rows) if all(_is_number(row[name]) for row in rows)]
    if wanted is not None:
        if wanted not in numbers:
            raise SweepError(f"--load={wanted}: expected a number that varies: {', '.join(numbers) or 'this sweep has none'}")
        return wanted
    numbers = [name for name in numbers if name != SEED]
    return next((name for name in LOADS if name in numbers), numbers[0] if len(numbers) == 1 else None)


def curves_of(rows: Sequence[Mapping[str, Any]], load: str) -> list[SweepCurve]:
    """One curve for each combination of what varies beside the load and the seed, in order of the runs. Illustrative runs
    have curves of their own, whose names say so."""
    naming = [name for name in settings_of(rows) if name not in (load, SEED)]
    names = [_name_of(row, naming) for row in rows]
    illustrative = {name for name, row in zip(names, rows, strict=True) if illustration_of(row)}
    designs: dict[tuple[str, bool], dict[float, list[Mapping[str, Any]]]] = {}
    for name, row in zip(names, rows, strict=True):
        is_illustrative = name in illustrative if row["status"] != FINISHED else bool(illustration_of(row))
        designs.setdefault((name, is_illustrative), {}).setdefault(float(row[load]), []).append(row)
    return [
        SweepCurve(
            f"{name} (illustrative)" if is_illustrative else name,
            tuple(sorted(runs)),
            tuple(tuple(runs[load]) for load in sorted(runs)),
            is_illustrative,
        )
        for (name, is_illustrative), runs in designs.items()
    ]


def _name_of(row: Mapping[str, Any], naming: Sequence[str]) -> str:
    words = (str(row[name]) if isinstance(row[name], str) else f"{name}={row[name]}" for name in naming)
    return " ".join(words) or "all runs"


def illustrations(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines that say which figures are illustrative and why, each once."""
    return [line for line in dict.fromkeys(map(illustration_of, rows)) if line]


def _mean(runs: Sequence[Mapping[str, Any]], figure: str) -> float:
    values = [value for run in runs if _is_number(value := run.get(figure))]
    return float(np.mean(values)) if len(values) == len(runs) else float("nan")


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
