"""The first import of every tool: where its Python lacks a package, one line says what works instead, and exit code 2."""

from __future__ import annotations

import os
import shlex
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
EXTRAS = {"torch": "torch", "nixl": "nixl", "mypy": "compile", "mypyc": "compile"}  # of pyproject.toml, that have a package


def instead_of(package: str, words: list[str], prefix: Path) -> str:
    """What to run instead of the tool and arguments in `words`, for which the Python at `prefix` lacks `package`."""
    python = VENV / "bin" / "python"
    again = shlex.join([_from_here(python), *words])
    if not python.exists():
        return f"{_from_here(ROOT / 'tools' / 'emu')} --help, which makes .venv, then {again}"
    if prefix.resolve() != VENV.resolve() and _is_in_venv(package):
        return again
    extra = f"[{EXTRAS[package]}]" if package in EXTRAS else ""
    install = shlex.join([_from_here(python), "-m", "pip", "install", "-e", f"{ROOT}{extra}"])
    return f"{install} && {again}"


def _is_in_venv(package: str) -> bool:
    folders = [str(folder) for folder in VENV.glob("lib/python3*/site-packages")]
    return package == "emu" or PathFinder.find_spec(package, folders) is not None


def _from_here(path: Path) -> str:
    """As it is typed in the working directory."""
    here = os.path.relpath(path)
    return str(path) if here.startswith("..") else here


def _report(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    package = error.name.partition(".")[0] if isinstance(error, ModuleNotFoundError) and error.name else ""
    if not package or find_spec(package) is not None:  # there is such a package: a mistake of ours
        sys.__excepthook__(kind, error, traceback)
        return
    _refuse(f"{package} is not installed for {sys.executable}", package)


def _refuse(problem: str, package: str) -> NoReturn:
    print(f"{Path(sys.argv[0]).name}: {problem}; expected: {instead_of(package, sys.argv, Path(sys.prefix))}", file=sys.stderr)
    sys.exit(2)


if Path(sys.argv[0]).resolve().parent == ROOT / "tools":  # not where something else imports a tool
    sys.excepthook = _report
    if sys.version_info < (3, 11):  # noqa: UP036  which only a Python that old sees
        _refuse(f"{sys.executable} is Python {sys.version_info[0]}.{sys.version_info[1]}, too old", "emu")
