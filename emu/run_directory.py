"""The directory of a run: it is new or empty, or is cleared on request, and one run at a time is in it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from emu.files import LOCK, locked
from emu.results.sweep_table import SUMMARY, read_json

HYDRA = ".hydra"
HYDRA_FILES = ("config.yaml", "hydra.yaml", "overrides.yaml")
# All that a run leaves. What else is there is somebody's, and keeps the directory from being cleared.
RESULTS = (SUMMARY, "requests.parquet", "events.msgpack", "outputs.jsonl", "report.html", "emu.log")


class RunDirectoryError(ValueError):
    """A directory that a run cannot have. The text is one line for the user."""


@contextmanager
def opened(directory: Path, overwrites: bool) -> Iterator[None]:
    """A context in which this process alone has `directory`, empty; if it `overwrites`, what a run has left there is deleted.

    Raises RunDirectoryError where another run is in it, or it holds anything else; OSError where it cannot be made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _check(directory, overwrites)  # before a file is made in what may be anybody's
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(directory / LOCK))
        except BlockingIOError as error:
            raise RunDirectoryError(f"hydra.run.dir={directory}: another emu is running there; expected another one") from error
        _check(directory, overwrites)
        _clear(directory)
        yield


def _check(directory: Path, overwrites: bool) -> None:
    there = sorted(path.name for path in directory.iterdir() if path.name != LOCK)
    if there and not overwrites:
        raise RunDirectoryError(
            f"hydra.run.dir={directory}: holds {there[0]} already; expected a new or empty directory, "
            "or overwrite=true to delete the run that is there"
        )
    for name in there:
        if not _is_ours(directory / name):
            raise RunDirectoryError(
                f"hydra.run.dir={directory}: holds {name}, which no run leaves; "
                "overwrite=true deletes the directory of a run and no other"
            )
    if there and not (directory / HYDRA).is_dir() and "verdict" not in (read_json(directory / SUMMARY) or {}):
        raise RunDirectoryError(
            f"hydra.run.dir={directory}: holds {there[0]}, but neither {HYDRA} nor the {SUMMARY} of a run; "
            "overwrite=true deletes the directory of a run and no other"
        )


def _is_ours(path: Path) -> bool:
    if path.name == HYDRA:
        return path.is_dir() and not path.is_symlink() and all(inner.name in HYDRA_FILES for inner in path.iterdir())
    unfinished = tuple(f".{name}.part" for name in RESULTS)
    return path.name in (*RESULTS, *unfinished) and (path.is_symlink() or not path.is_dir())


def _clear(directory: Path) -> None:
    for path in list(directory.iterdir()):
        if path.name == HYDRA:
            for inner in list(path.iterdir()):
                inner.unlink()
            path.rmdir()
        elif path.name != LOCK:
            path.unlink()


def discard(directory: Path) -> None:
    """Delete the directory of a run that did not start, with what it made there. It is `opened`, and was empty."""
    _clear(directory)
    (directory / LOCK).unlink(missing_ok=True)
    directory.rmdir()
