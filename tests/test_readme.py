"""The commands of README.md work: each ```sh block is run as written, but for what would install or test anew.

A calibration is there already. To make one takes a minute of both cores; `tests/execution/calibration` makes a smaller one.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from emu.build import build, compose
from emu.execution.calibration import host

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
INSTALLS = ("tools/test", "git clone", "cd ")
RUN_ELSEWHERE = ("tools/emu reproduce --quick",)  # tests/cli/test_reproduce.py runs it as printed


def runnable(block: str) -> str:
    """The block's lines with `tools/emu` in the current environment, less those that need another one."""
    lines = [line for line in block.splitlines() if not line.startswith((*INSTALLS, *RUN_ELSEWHERE))]
    return "\n".join(lines).replace("tools/emu", "python -m emu")


@pytest.fixture
def folder(tmp_path):
    """Stands for the repository's root; what the commands leave stays out of the real one."""
    root = tmp_path / "repository"
    root.mkdir()
    for name in ("tools", "conf"):
        (root / name).symlink_to(ROOT / name)
    return root


def test_the_first_command_is_the_default_rehearsal():
    assert "tools/emu" in BLOCKS[0].splitlines()
    assert "tools/test" in "".join(BLOCKS)


@pytest.fixture
def calibrated(folder, monkeypatch):
    """In the folder, calibrations as of another host for what is measured at the first use."""

    def keep(job, path):
        path.parent.mkdir(parents=True)
        path.write_text((ROOT / "conf/timing/llama_30m_cpu.yaml").read_text())
        return yaml.safe_load(path.read_text())

    monkeypatch.setattr(host, "_calibrate", keep)
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        build(compose(["experiment=mixed"]))


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for block in BLOCKS if runnable(block).strip()])
def test_commands_run(folder, block, request):
    if "experiment=mixed" in block:
        request.getfixturevalue("calibrated")
    if "../shared/data" in block:
        (folder.parent / "shared").mkdir()
        (folder.parent / "shared/data").symlink_to(request.getfixturevalue("data_dir"))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", "-euo", "pipefail", "-c", runnable(block)]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
