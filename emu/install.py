"""What is installed here, and the command that installs what is missing."""

import shlex
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

DISTRIBUTION = "emu-serving"  # `emu` on PyPI is another program
CHECKOUT = (Path(__file__).parents[1] / "conf").resolve().parent  # through the link of a compiled package, too


def emu_version() -> str:
    """The installed version of emu; `unknown` where its sources are used without an installation."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


def versions(*packages: str) -> dict[str, str]:
    """The versions of emu and of these packages, by name."""
    return {"emu": emu_version()} | {name: metadata.version(name) for name in packages}


def is_compiled() -> bool:
    """True if the modules that tools/compile.py compiles run compiled."""
    return not str(find_spec("emu.core.machine").origin).endswith(".py")


def install_command(extra: str, checkout: Path = CHECKOUT) -> str:
    """The command line that installs an extra of emu, to be pasted where the user is."""
    if not (checkout / "pyproject.toml").is_file():
        return f"pip install '{DISTRIBUTION}[{extra}]'"
    python = ".venv/bin/python" if Path(sys.prefix) == checkout / ".venv" else shlex.quote(sys.executable)
    go_there = "" if Path.cwd() == checkout else f"cd {shlex.quote(str(checkout))} && "
    return f"{go_there}{python} -m pip install -e '.[{extra}]'"
