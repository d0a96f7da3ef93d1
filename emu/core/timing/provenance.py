"""Where the figures of a timing come from: whether a run by them predicts anything, or only illustrates."""

from dataclasses import dataclass

ALL_FIGURES = "latencies, service levels and cost"  # that a run by the timing of emulated machines has


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a timing says of itself. It is a measurement if it states its `source`, `date` and `error`, and has no `flaw`.

    `name` is the option of `timing`, '' where a file does not tell. `flaw` is why the
    figures are no measurement, where there is more to say than that.
    """

    name: str = ""
    source: str | None = None
    date: str | None = None
    error: str | None = None
    flaw: str = ""

    @property
    def missing(self) -> list[str]:
        """Those of source, date and error that are not stated."""
        stated = {"source": self.source, "date": self.date, "error": self.error}
        return [key for key, text in stated.items() if not (text and text.strip())]

    @property
    def is_measured(self) -> bool:
        return not (self.missing or self.flaw)

    def why_illustrative(self, figures: str = ALL_FIGURES) -> str:
        """The line that says that `figures` of a run are illustrative. Only for what is no measurement."""
        subject = f"timing={self.name}" if self.name else "the timing"
        return f"{subject} is not a measurement{f' ({self.flaw})' if self.flaw else ''}: {figures} are illustrative"
