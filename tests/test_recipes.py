"""The recipes of emu/README.md work as written, one after the other in a copy of the repository."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import parquet

from tests.test_architecture import violations

ROOT = Path(__file__).parents[1]
RECIPES = re.split(r"^### ", (ROOT / "emu/README.md").read_text().partition("## Six recipes")[2], flags=re.MULTILINE)[1:]
BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ON_RAY = "tools/emu transfer=files"  # takes a Ray: it was tried by hand, as the contract tests of that recipe were


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository."""
    copy = tmp_path_factory.mktemp("recipes") / "emu"
    copy.mkdir()
    for name in ("emu", "conf", "tests"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def apply(copy, kind, name, text):
    if kind == "diff":
        command = ["git", "apply", "--recount", "-"]
        done = subprocess.run(command, cwd=copy, input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    elif kind != "sh":
        (copy / name).write_text(text)


def commands(recipe):
    lines = [line for kind, _, text in BLOCK.findall(recipe) if kind == "sh" for line in text.splitlines()]
    return [line.split()[1:] for line in lines if line.startswith("tools/emu ") and not line.startswith(ON_RAY)]


@pytest.fixture(scope="module")
def changed(copy):
    """The copy with all recipes in it, each of which keeps the architecture."""
    for recipe in RECIPES:
        for kind, name, text in BLOCK.findall(recipe):
            apply(copy, kind, name, text)
        assert violations(copy) == [], recipe.splitlines()[0]
    return copy


def test_there_are_six():
    assert len(RECIPES) == 6
    assert sum(bool(commands(recipe)) for recipe in RECIPES) == 5


@pytest.mark.parametrize(
    "recipe", [recipe for recipe in RECIPES if commands(recipe)], ids=lambda recipe: recipe.splitlines()[0]
)
def test_its_command_runs(changed, recipe):
    for arguments in commands(recipe):
        done = subprocess.run([sys.executable, "-m", "emu", *arguments], cwd=changed, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert str(changed) in done.stdout  # where the results are


def test_the_fact_has_its_column_and_the_section_its_place(changed):
    requests = parquet.read_table(changed / "runs/with_a_fact/requests.parquet")
    assert min(requests["num_waiting"].to_pylist()) == 0
    assert "Longest waits" in (changed / "runs/with_a_section/report.html").read_text()
