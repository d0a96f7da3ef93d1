"""What is said to be missing can be installed by pasting the line; every dependency is bounded."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from emu.install import CHECKOUT, DISTRIBUTION, install_command

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A clone whose tools/emu made the .venv that is in use."""
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    return tmp_path


def test_in_a_clone_that_tools_emu_uses(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    assert install_command("torch", checkout) == ".venv/bin/python -m pip install -e '.[torch]'"


def test_from_somewhere_else(checkout, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("else where"))
    assert install_command("torch", checkout) == f"cd {checkout} && .venv/bin/python -m pip install -e '.[torch]'"


def test_in_an_environment_of_the_users(checkout, monkeypatch):
    monkeypatch.setattr(sys, "prefix", "/opt/conda")
    monkeypatch.setattr(sys, "executable", "/opt/conda/bin/python")
    monkeypatch.chdir(checkout)
    assert install_command("nixl", checkout) == "/opt/conda/bin/python -m pip install -e '.[nixl]'"


def test_without_a_clone(tmp_path):
    assert install_command("torch", tmp_path) == "pip install 'emu-serving[torch]'"


def test_this_clone_and_name():
    assert (ROOT, PROJECT["project"]["name"]) == (CHECKOUT, DISTRIBUTION)


def requirements():
    yield from PROJECT["build-system"]["requires"]
    yield from PROJECT["project"]["dependencies"]
    for extra in PROJECT["project"]["optional-dependencies"].values():
        yield from extra


@pytest.mark.parametrize("requirement", [line for line in requirements() if not line.startswith(DISTRIBUTION)])
def test_every_dependency_has_an_upper_bound(requirement):
    assert re.search("<=?[0-9]", requirement)


def test_nobody_is_told_to_install_the_other_emu():
    """`emu` on PyPI is another program."""
    files = [path for folder in ("emu", "tools", "conf") for path in (ROOT / folder).rglob("*") if path.is_file()]
    texts = {path: path.read_text(errors="replace") for path in [*files, ROOT / "README.md"] if path.suffix != ".pyc"}
    assert [path for path, text in texts.items() if re.search(r"pip install '?emu\b(?!-serving)", text)] == []
