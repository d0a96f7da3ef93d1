"""What came of a claim: its figures in each mode beside the paper's, and what the runs say about the difference."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ClaimFigure:
    """One number of a claim. `kind` tells how it is written: times, change (a share with its sign), share, rate, per_dollar,
    seconds, count. `paper` is None where the paper has no such number, a value None where nothing could be measured."""

    what: str
    kind: str
    paper: float | None
    values: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Finding:
    """The figures of a claim, in a line why they differ from the paper's, and what more the runs say of that, a line each.

    All of it is derived from the runs.
    """

    name: str
    where: str
    says: str
    figures: tuple[ClaimFigure, ...]
    conclusion: str
    why: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def written(value: float | None, kind: str) -> str:
    """A figure as it is shown."""
    if value is None:
        return "–"
    match kind:
        case "times":
            return f"{value:.2f}×"
        case "change":
            return f"{100 * value:+.1f} %".replace("-", "−")
        case "share":
            return f"{100 * value:.0f} %"
        case "rate":
            return f"{value:.4g}"
        case "seconds":
            return f"{1000 * value:.1f} ms"
        case _:
            return f"{value:.3g}"
