"""The wheel is the whole program: installed outside the checkout, it runs as its command.

The new environment finds the libraries in this one's, but not this one's `emu`, which is a link to the sources. Skipped where
pip cannot build: it fetches setuptools.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import emu

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "emu", "conf")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the sources: setuptools leaves its files beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "dist", "."]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if built.returncode and "setuptools" in built.stderr:
        pytest.skip(f"pip cannot build here: {built.stderr.splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    [path] = (folder / "dist").iterdir()
    return path


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """Runs a program of an environment in which the wheel is installed, in an empty folder."""
    folder = tmp_path_factory.mktemp("elsewhere")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    site_packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    pip = [sys.executable, "-m", "pip", "--python", environment, "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-compile", wheel], check=True)
    (site_packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(program: str, *arguments: str) -> str:
        command = [environment / "bin" / program, *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.folder = folder
    return run


def test_it_is_installed_outside_the_checkout(run):
    path = run("python", "-c", "import emu.build; print(emu.build.__file__)").strip()
    assert path.startswith(str(run.folder))
    assert run("emu", "--version") == f"emu {emu.__version__} (plain Python, not compiled)\n"


def test_help_lists_the_groups(run):
    assert "placement" in run("emu", "--help")


def test_a_run_leaves_its_page(run):
    assert "\nVALID\n" in "\n" + run("emu", "runtime=virtual", "workload.duration_s=2", "hydra.run.dir=one")
    assert json.loads((run.folder / "one/summary.json").read_text())["host"]["versions"]["emu"] == emu.__version__
    assert (run.folder / "one/report.html").is_file()


def test_a_sweep_leaves_its_table(run):
    said = run("emu", "-m", "runtime=virtual", "workload.duration_s=2", "workload.rate_rps=2,4", "hydra.sweep.dir=two")
    assert "results: 2 VALID" in said
    assert (run.folder / "two/results.parquet").is_file()
    assert "highest workload.rate_rps within all objectives" in run("emu", "report", "two")
    assert (run.folder / "two/report.html").is_file()
