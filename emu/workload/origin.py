"""Where the requests of a trace come from: what a run says about its file."""

from dataclasses import dataclass

MAX_COLUMNS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class TraceOrigin:
    """A window of a trace file. Times are seconds of the trace's own time, which begins at 0, or at the first row of dates.

    `sha256` is of the file as stored. `requests` of its `requests_in_file` are in the window; `file_span_s` is the arrival of
    the last one. `skipped` rows without output were left out and `reordered` rows stood after a later one, in the whole file.
    `repeated_prefix_share` is the share of prompt tokens in the window that begin with blocks seen there before, by
    hash_ids; None without. `is_start_given`: the user chose the window's start, so that cost counts from it.
    """

    path: str
    format: str
    time_unit: str
    sha256: str
    start_s: float
    duration_s: float
    is_start_given: bool
    requests: int
    requests_in_file: int
    file_span_s: float
    unused_columns: tuple[str, ...]
    skipped: int
    reordered: int
    repeated_prefix_share: float | None = None

    @property
    def end_s(self) -> float:
        """Where the window ends, at most the file's last arrival."""
        return min(self.start_s + self.duration_s, max(self.file_span_s, self.start_s))

    def line(self) -> str:
        """One line for the user: what was read, and what was not used."""
        words = [
            f"trace: {self.requests:,} of {self.requests_in_file:,} requests, "
            f"{_seconds(self.start_s)} to {_seconds(self.end_s)} s of {_seconds(self.file_span_s)} s"
        ]
        if self.unused_columns:
            shown = self.unused_columns[:MAX_COLUMNS_SHOWN]
            more = len(self.unused_columns) - len(shown)
            words.append(f"columns not used: {', '.join(shown)}{f' and {more:,} more' if more else ''}")
        words.append(f"{self.format}, times {'are dates' if self.time_unit == 'date' else f'in {self.time_unit}'}")
        if self.repeated_prefix_share is not None:
            words.append(f"{self.repeated_prefix_share:.1%} of prompt tokens repeat a prefix".replace("%", " %"))
        if self.skipped:
            words.append(f"{_rows(self.skipped)} without output skipped")
        if self.reordered:
            words.append(f"sorted: {_rows(self.reordered)} stood after a later one")
        return "; ".join(words)


def _rows(number: int) -> str:
    return f"{number:,} row{'' if number == 1 else 's'}"


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.4g}"
