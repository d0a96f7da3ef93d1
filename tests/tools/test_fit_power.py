"""The committed power figures against the measurements they come from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROFILE = Path(os.environ.get("EMU_DATA", ROOT / "../shared/data")) / "splitwise_profile"


@pytest.mark.skipif(not PROFILE.is_dir(), reason="needs $EMU_DATA/splitwise_profile")
def test_the_committed_file_is_what_the_tool_writes():
    done = subprocess.run([sys.executable, ROOT / "tools" / "fit_power.py"], capture_output=True, text=True, check=True)
    assert done.stdout == (ROOT / "conf" / "power" / "phase.yaml").read_text()
