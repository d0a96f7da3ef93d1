"""A tool that the wrong Python runs says in one line what works where the user is."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import hints

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
ROOT = TOOLS.parent
HAVE_NO_NEED = ("hints", "compile")  # of more than a Python
PROGRAMS = sorted(
    path.stem for path in TOOLS.glob("*.py") if path.stem not in HAVE_NO_NEED and "__main__" in path.read_text(encoding="utf-8")
)
BARE = [sys.executable, "-S"]  # without the packages


@pytest.mark.parametrize("tool", PROGRAMS)
def test_every_tool_looks_for_packages_after_the_hints(tool):
    tree = ast.parse((TOOLS / f"{tool}.py").read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in nodes]
    roots = [name.partition(".")[0] for name in names]
    assert all(name in sys.stdlib_module_names for name in roots[: roots.index("hints")])


@pytest.mark.parametrize(("tool", "package"), [("fit_timing", "numpy"), ("bench_virtual", "emu"), ("bench_engine", "torch")])
def test_a_missing_package_is_one_line(tool, package):
    arguments = ["--help", "a b"]
    done = subprocess.run([*BARE, f"tools/{tool}.py", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{tool}.py: {package} is not installed for {sys.executable}; expected: ")
    if (ROOT / ".venv/bin/python").exists():
        assert line.endswith(f".venv/bin/python tools/{tool}.py --help 'a b'")
    else:
        assert "expected: tools/emu --help, which makes .venv, then .venv/bin/python " in line


@pytest.fixture
def venv(tmp_path, monkeypatch):
    """Where .venv would be, in the working directory; it has numpy."""
    monkeypatch.setattr(hints, "ROOT", tmp_path)
    monkeypatch.setattr(hints, "VENV", tmp_path / ".venv")
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".venv"


def make(venv):
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()
    (venv / "lib" / "python3.11" / "site-packages" / "numpy").mkdir(parents=True)
    (venv / "lib" / "python3.11" / "site-packages" / "numpy" / "__init__.py").touch()


def test_what_works_depends_on_where_the_user_is(venv, tmp_path, monkeypatch):
    words, elsewhere = ["tools/x.py", "1"], Path("/usr")
    again = ".venv/bin/python tools/x.py 1"
    assert hints.instead_of("numpy", words, elsewhere) == f"tools/emu --help, which makes .venv, then {again}"
    make(venv)
    assert hints.instead_of("numpy", words, elsewhere) == again
    assert hints.instead_of("emu", words, elsewhere) == again
    install = f".venv/bin/python -m pip install -e '{tmp_path}[torch]' && {again}"
    assert hints.instead_of("torch", words, elsewhere) == hints.instead_of("torch", words, venv) == install
    assert hints.instead_of("rich", words, venv) == f".venv/bin/python -m pip install -e {tmp_path} && {again}"
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert hints.instead_of("numpy", words, elsewhere) == f"{venv}/bin/python tools/x.py 1"


def test_a_mistake_of_ours_is_still_a_traceback(tmp_path):
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "hints.py").write_text((TOOLS / "hints.py").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "tools" / "x.py").write_text("import hints\nimport json.missing\n")
    done = subprocess.run([*BARE, tmp_path / "tools" / "x.py"], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1 and "Traceback" in done.stderr
