"""What a search has run, in its directory: `search.json` says what is asked, `probes.jsonl` has a line a run, never rewritten.

A search decides by its runs alone. So one that is started again, with the lines that it finds, goes on where it ended.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from emu.config_error import ConfigError
from emu.files import LOCK, locked, parse_json, replacing
from emu.provisioning.design import Size
from emu.provisioning.probe import Probe
from emu.results.sweep_table import read_json, write_json

SEARCH, PROBES = "search.json", "probes.jsonl"
# What cannot be had back by another command line.
CHANGED = {
    "configuration": "a file in conf/ changed since; expected a new one",
    "code": "emu itself changed since; expected a new one",
}


class Key(NamedTuple):
    """A run of a search: the name of the design, its size and the rate."""

    design: str
    size: Size
    rate_rps: float


class ProbeLog:
    """The runs in a file, for several threads. `num_found` were there at the start.

    Raises OSError, and ConfigError for a file that is not of a search.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self.probes: dict[Key, Probe] = {}
        kept = b""
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True) if path.is_file() else (), start=1):
            if not line.endswith(b"\n"):
                break  # the process was killed as it wrote
            try:
                values = parse_json(line)
                found = Probe.from_json(values["probe"])
                self.probes[Key(values["design"], Size(*values["size"]), found.rate_rps)] = found
            except (ValueError, TypeError, KeyError):
                raise ConfigError(
                    f"{path}, line {number}: not a run of a search; expected the file as the search left it"
                ) from None
            kept += line
        with replacing(path) as temporary:
            temporary.write_bytes(kept)
        self.num_found = len(self.probes)

    def add(self, key: Key, found: Probe) -> None:
        line = json.dumps({"design": key.design, "size": key.size, "probe": found.as_json()}, allow_nan=False)
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            self.probes[key] = found


@contextmanager
def opened(directory: Path, asked: dict[str, Any], resumes: bool) -> Iterator[ProbeLog]:
    """The ledger of a search for what is `asked`, in a new directory or, if `resumes`, in that of the same search.

    Raises ConfigError where the directory holds no such search, or another process is at work there.
    """
    asked = json.loads(json.dumps(asked))  # as it is read back
    if resumes:
        found = read_json(directory / SEARCH)
        if found is None:
            raise ConfigError(f"--resume {directory}: holds no {SEARCH}; expected the directory of a search")
        for name in asked:
            if found.get(name) != asked[name]:
                was, is_now = _short(found.get(name)), _short(asked[name])
                what = CHANGED.get(
                    name, f"its {name} was {was}, and is {is_now}; expected the command that it was started with"
                )
                raise ConfigError(f"--resume {directory}: another search: {what}")
    else:
        directory.mkdir(parents=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(directory / LOCK))
        except BlockingIOError as error:
            raise ConfigError(f"--resume {directory}: another process is searching there; wait for it") from error
        if not resumes:
            write_json(asked, directory / SEARCH)
        yield ProbeLog(directory / PROBES)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
