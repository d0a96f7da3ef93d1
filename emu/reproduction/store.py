"""What has been measured already, a file for each, so that a command that was killed goes on where it was."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import xxhash

from emu.results.sweep_table import read_json, write_json

SOURCE_DIR = Path(__file__).parents[1]
# What decides the result of a run; the page and the tools do not.
DECIDES = ("core", "execution", "workload", "runtime", "results", "transfer", "provisioning", "build.py")
DECIDES_NOT = ("results/report", "results/terminal.py", "provisioning/page.py", "provisioning/heat_map.py")


class Store:
    """Measurements in `directory`, each under a key: whatever decides it, as JSON, and the `code` that measured it."""

    def __init__(self, directory: Path, code: str) -> None:
        self._directory = directory
        self._code = code

    def get(self, key: Any, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was measured under `key`, else `measure()`, which is kept. Raises OSError where it cannot be."""
        name = xxhash.xxh3_64_hexdigest(json.dumps([key, self._code], sort_keys=True).encode())
        path = self._directory / f"{name}.json"
        if (known := read_json(path)) is not None:
            return known["measured"]
        measured = measure()
        self._directory.mkdir(parents=True, exist_ok=True)
        write_json({"key": key, "measured": measured}, path)
        return measured


@cache
def code_digest() -> str:
    """Of the code and data of emu that decide the result of a run."""
    digest = xxhash.xxh3_64()
    for name in DECIDES:
        root = SOURCE_DIR / name
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            place = path.relative_to(SOURCE_DIR).as_posix()
            if path.suffix in (".py", ".csv") and not place.startswith(DECIDES_NOT):
                digest.update(place.encode())
                digest.update(path.read_bytes())
    for name in ("outcome.py", "published.py", "handover.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()
