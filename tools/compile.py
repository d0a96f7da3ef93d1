#!/usr/bin/env python3
"""Compile what a run in emulated time spends its time in, with mypyc: the same source, the same results, twice as fast.

The package is copied into `.compiled/` and its hot modules are compiled there, never beside the sources, where an extension
would hide what is edited later. Plain Python stays the default and the reference. A stamp says of which sources the copy is,
and it is used for no other:

    pip install -e '.[compile]'                     # and a C compiler and Python's headers
    python tools/compile.py                         # once, and again after a change; half a minute
    EMU_COMPILED=1 tools/emu runtime=virtual ...    # exit code 2 where the compiled package is out of date
    python tools/compile.py --path                  # where it is, for PYTHONPATH; also only as long as it is of these sources
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

from emu.install import install_command

ROOT = Path(__file__).parents[1]
COMPILED = ROOT / ".compiled"
STAMP = "stamp"
# What every event passes through. Not: classes whose constructors are the schema of a configuration (policies, runtimes,
# timing), because a compiled one does not tell its signature; what is pickled or copied (cluster, timing models, requests),
# which a compiled object cannot be; and what runs once a run.
MODULES = (
    "emu/core/batch.py",
    "emu/core/messages.py",
    "emu/core/facts.py",
    "emu/core/attempts.py",
    "emu/core/sequence.py",
    "emu/core/kv_cache.py",
    "emu/core/decode_batch.py",
    "emu/core/prompt_queue.py",
    "emu/core/handover.py",
    "emu/core/machine.py",
    "emu/core/timing/chunk.py",
    "emu/core/pools.py",
    "emu/compat/splitwise_sim/load.py",
    "emu/core/reports.py",
    "emu/core/scheduler.py",
    "emu/compat/splitwise_sim/scheduler.py",
    "emu/core/fair_share.py",
    "emu/core/flow.py",
    "emu/core/forecast.py",
    "emu/core/forecasts.py",
    "emu/core/links.py",
    "emu/core/network.py",
    "emu/execution/emulated.py",
    "emu/runtime/step_driver.py",
    "emu/runtime/virtual_loop.py",
    "emu/results/machine_log.py",
    "emu/results/request_log.py",
)


# Types of what is not compiled are of no concern here. `emu` names its library's, through which all of torch and Ray would be
# read: 5 GB, and minutes.
OPTIONS = """[mypy]
ignore_missing_imports = true
follow_imports = silent
[mypy-emu.library]
follow_imports = skip
"""


class CannotCompile(Exception):
    """Something is missing. The text is for the user."""


def stamp() -> str:
    """Of what a compiled package is made of: it is out of date where this has changed."""
    digest = hashlib.sha256(f"{sys.version} {platform.machine()}".encode())
    sources = [path for path in (ROOT / "emu").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    for path in [Path(__file__), *sorted(sources)]:
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def is_current(folder: Path) -> bool:
    return (folder / STAMP).is_file() and (folder / STAMP).read_text() == stamp()


def check_tools() -> None:
    """Raises CannotCompile."""
    for module in ("mypyc", "setuptools"):
        if find_spec(module) is None:
            raise CannotCompile(f"{module} is missing: {install_command('compile')}")
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        raise CannotCompile(f"the C compiler {compiler} is missing: install one, or set CC")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        raise CannotCompile(f"Python's headers are missing: no {header}")


def compile_package(folder: Path) -> None:
    """Make `folder` anew; it is left as it was where that fails. Raises CannotCompile."""
    check_tools()
    made_of = stamp()
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as temporary:
        fresh = Path(temporary) / "package"
        shutil.copytree(ROOT / "emu", fresh / "emu", ignore=shutil.ignore_patterns("__pycache__", "conf"))
        (Path(temporary) / "mypy.ini").write_text(OPTIONS)
        options = [f"--config-file={temporary}/mypy.ini", f"--cache-dir={temporary}/cache"]
        command = [sys.executable, "-m", "mypyc", *options, *MODULES]
        environment = {"MYPYC_OPT_LEVEL": "3", "MYPYC_DEBUG_LEVEL": "0"} | os.environ
        done = subprocess.run(command, cwd=fresh, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotCompile(f"mypyc failed:\n{done.stdout}{done.stderr}".rstrip())
        shutil.rmtree(fresh / "build")  # the C sources
        (fresh / "emu" / "conf").symlink_to(ROOT / "conf")
        (fresh / STAMP).write_text(made_of)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", action="store_true", help="only say where the compiled package is; fail if it is out of date")
    args = parser.parse_args()
    try:
        if not args.path:
            compile_package(COMPILED)
            print(f"{len(MODULES)} modules compiled. To run them: EMU_COMPILED=1 tools/emu runtime=virtual ...")
        elif is_current(COMPILED):
            print(COMPILED)
        else:
            raise CannotCompile("there is no compiled package of these sources: run python tools/compile.py")
    except CannotCompile as error:
        print(f"compile.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
