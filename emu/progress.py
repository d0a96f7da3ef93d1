"""How far a run is, on stderr: a bar on a terminal, elsewhere a line now and then."""

import sys
from time import perf_counter
from typing import TYPE_CHECKING

from emu.runtime.run_config import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

LINE_EVERY_S = 10.0


class ProgressDisplay:
    """Shows the progress of a run of `num_requests` requests. A context manager; nothing of a bar stays when it is left."""

    def __init__(self, num_requests: int) -> None:
        self._num_requests = num_requests
        self._bar: Bar | None = None
        self._next_line_s = perf_counter() + LINE_EVERY_S

    def __enter__(self) -> "ProgressDisplay":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(), TextColumn("{task.description}"))
            bar = self._bar = Bar(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4)
            self._task = bar.add_task("starting", total=self._num_requests)
            bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, line: str) -> None:
        """What is going on before the first request."""
        if self._bar is not None:
            self._bar.update(self._task, description=line)
        else:
            print(line, file=sys.stderr)

    def show(self, progress: Progress) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=progress.num_ended, description=self._describe(progress))
        elif perf_counter() >= self._next_line_s:
            self._next_line_s = perf_counter() + LINE_EVERY_S
            print(self._describe(progress), file=sys.stderr)

    def _describe(self, progress: Progress) -> str:
        rate_rps = progress.num_ended / progress.now_s if progress.now_s > 0 else 0.0
        return (
            f"{progress.now_s:.1f} s: {progress.num_ended:,} of {self._num_requests:,} requests ended, "
            f"{progress.num_arrived - progress.num_ended:,} running, {rate_rps:.1f}/s, "
            f"late {progress.late_p99_s * 1e3:.1f} ms at p99"
        )
