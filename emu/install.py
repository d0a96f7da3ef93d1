"""What is installed here, and the command that installs what is missing."""

import shlex
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from emu import __version__

DISTRIBUTION = "emu-serving"  # `emu` on PyPI is another program
CHECKOUT = (Path(__file__).parent / "conf").resolve().parent  # where emu/conf is a link: in a clone, or compiled from one


def versions(*packages: str) -> dict[str, str]:
    """The versions of emu and of these packages, by name."""
    return {"emu": __version__} | {name: metadata.version(name) for name in packages}


def is_compiled() -> bool:
    """True if the modules that tools/compile.py compiles run compiled."""
    spec = find_spec("emu.core.machine")
    return spec is not None and not str(spec.origin).endswith(".py")


def install_command(extra: str, checkout: Path = CHECKOUT) -> str:
    """The command line that installs emu with an extra, if that is not '', to be pasted where the user is."""
    extra = f"[{extra}]" if extra else ""
    if not (checkout / "pyproject.toml").is_file():
        return f"pip install '{DISTRIBUTION}{extra}'"
    python = ".venv/bin/python" if Path(sys.prefix) == checkout / ".venv" else shlex.quote(sys.executable)
    go_there = "" if Path.cwd() == checkout else f"cd {shlex.quote(str(checkout))} && "
    return f"{go_there}{python} -m pip install -e '.{extra}'"
