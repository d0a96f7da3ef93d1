"""How far a calibration is, a line now and then."""

import sys
import time
from collections.abc import Callable

LINE_EVERY_S = 5.0


def progress_lines(what: str) -> Callable[[str], None]:
    """say(text) prints `what: text` to stderr, unless the last such line is younger than `LINE_EVERY_S`."""
    next_line_s = 0.0

    def say(text: str) -> None:
        nonlocal next_line_s
        if time.monotonic() >= next_line_s:
            next_line_s = time.monotonic() + LINE_EVERY_S
            print(f"{what}: {text}", file=sys.stderr, flush=True)

    return say
