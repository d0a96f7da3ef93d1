"""The command: briefly as a whole, and what it refuses. That it resumes, tests/reproduction/test_lab.py tests."""

import json
import subprocess
import sys

COMMAND = (sys.executable, "-m", "emu", "reproduce")


def reproduce(*arguments, cwd):
    command = [*COMMAND, "--jobs", "1", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_quick(tmp_path):
    ended = reproduce("--quick", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    output = tmp_path / "runs/reproduction"
    claims = json.loads((output / "claims.json").read_text())["claims"]
    assert [claim["name"] for claim in claims] == ["1.4x-at-20%-lower-cost", "batch-jobs", "layer-wise"]
    page = (output / "report.html").read_text()
    for claim in claims:
        assert claim["name"] in ended.stdout
        assert claim["figures"][0]["what"] in page
    assert "far too short for results" in page
    assert "--quick: the figures below are no results: runs of 4 s only show that it works" in " ".join(ended.stdout.split())
    illustrative = "timing=splitwise_sim is not a measurement"
    assert f"compatible mode is ILLUSTRATIVE: {illustrative}" in " ".join(ended.stdout.split()) and illustrative in page
    assert "://" not in page.replace("http://www.w3.org", "")


def test_help_is_help(tmp_path):
    ended = reproduce("--help", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "1.4x-at-20%-lower-cost" in ended.stdout and "%%" not in ended.stdout


def test_a_claim_that_is_not_there(tmp_path):
    ended = reproduce("--claim", "3x", cwd=tmp_path)
    assert ended.returncode == 2
    assert "invalid choice: '3x'" in ended.stderr
    assert list(tmp_path.iterdir()) == []
