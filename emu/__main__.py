"""The command line: `emu SUBCOMMAND ...`, or else `emu [KEY=VALUE ...]`, which runs a rehearsal, and `emu -m ...`, a sweep.

Only what is asked for is imported: `emu calibrate --config` works where there is no Hydra.
"""

import sys
from importlib import import_module
from importlib.util import find_spec

from emu.install import install_command

SUBCOMMANDS = ("compare", "provision", "calibrate", "validate", "report", "reproduce")
EXTRAS = ("torch", "nixl")  # of pyproject.toml, that have the name of their package


def main() -> None:
    """The console script `emu`."""
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if first.isidentifier() and first not in SUBCOMMANDS:
        print(f"emu: {first}: expected KEY=VALUE, or one of {', '.join(SUBCOMMANDS)}; see emu --help", file=sys.stderr)
        sys.exit(2)
    name = first if first in SUBCOMMANDS else "run"
    try:
        sys.exit(import_module(f"emu.cli.{name}").main(sys.argv[1 + (first in SUBCOMMANDS) :]))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or find_spec(package) is not None:  # a mistake of ours
            raise
        what = f"emu {name}" if name == first else "this run"
        extra = package if package in EXTRAS else ""
        print(f"emu: {what} needs {package}, which is not installed; {install_command(extra)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
