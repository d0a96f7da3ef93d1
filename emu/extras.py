"""python -m emu.extras [FLAGS] [KEY=VALUE ...]: names the extra of this project that these need and that is not installed.

tools/emu asks before it installs one. A command line that is refused for another reason needs none, and `emu` itself says why.
"""

import sys

from emu.build import build, compose
from emu.config_error import ConfigError
from emu.core.setting import MissingExtra
from emu.sweeps.plan import plan_sweep


def missing_extra(arguments: list[str]) -> str:
    """The extra that the run or sweep of a command line lacks; '' where it lacks none, or is refused before."""
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    try:
        if {"-m", "--multirun"} & set(arguments):
            plan_sweep(overrides)
        else:
            build(compose(overrides))
    except ConfigError as error:
        return error.__cause__.extra if isinstance(error.__cause__, MissingExtra) else ""
    return ""


if __name__ == "__main__":
    print(missing_extra(sys.argv[1:]))
