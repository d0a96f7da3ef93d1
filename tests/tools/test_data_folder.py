"""Tools that read measurements say in a line where these are not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.mark.parametrize("tool", ["fit_power", "fit_timing", "validate_timing", "compare_reference", "bench_virtual"])
def test_a_missing_data_folder_is_one_line(tool, tmp_path):
    environment = os.environ | {"EMU_DATA": str(tmp_path / "nowhere")}
    done = subprocess.run([sys.executable, TOOLS / f"{tool}.py"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    last_line = done.stderr.splitlines()[-1]
    assert str(tmp_path / "nowhere") in last_line
    assert last_line.endswith("set EMU_DATA to the folder of the data")
    assert "Traceback" not in done.stderr
