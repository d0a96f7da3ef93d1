"""tools/emu and tools/test install what is missing, once; here with Pythons that only tell what they were asked to do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Answers `-c` checks, makes itself a virtual environment on `-m venv DIR`, and prints any other call.
PYTHON = """#!/bin/sh
case "$1 $2" in
    --version*) echo "Python 3.11.7" ;;
    *ensurepip*) exit {ensurepip} ;;
    *python%d*) echo python3.11-venv ;;
    -c*) exit {supported} ;;
    "-m emu") echo "$@${{PYTHONSAFEPATH:+, safe}}" ;;
    "-m compileall") exit 1 ;;
    "-m emu.extras") case "$*" in *runtime=virtual*) ;; *) echo torch ;; esac ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *) echo "$@" ; case "$*" in *{fails}*) exit 1 ;; esac ;;
esac
"""
INSTALL = "-m pip install -qq --no-compile --disable-pip-version-check -e"
GATES = [
    "-m ruff check --quiet emu tests tools",
    "-m ruff format --check --quiet emu tests tools",
    "-m mypy --no-error-summary",
]


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    shutil.copytree(ROOT / "tools", root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "pyproject.toml").write_text("[project]\n")
    return root


@pytest.fixture
def use(repository, tmp_path):
    """Run a tool with the fake Python; returns (exit code, stdout lines, stderr lines)."""

    def run(tool, *arguments, supported=True, ensurepip=True, fails="-nothing-", shell=()):
        for name in ("python3.11", "python3.12", "python3"):
            write_python(tmp_path / "bin" / name, supported, ensurepip, fails)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
        environment["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        command = [*shell, tool if isinstance(tool, Path) else repository / "tools" / tool, *arguments]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        return ended.returncode, ended.stdout.splitlines(), ended.stderr.splitlines()

    return run


def write_python(path, supported=True, ensurepip=True, fails="-nothing-"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PYTHON.format(supported=int(not supported), ensurepip=int(not ensurepip), fails=fails))
    path.chmod(0o755)


def test_the_first_start_installs_and_later_ones_do_not(use, repository):
    code, out, err = use("emu", "runtime=virtual", "faults=[{machine: d0, at_s: 1}]")
    command = "-m emu runtime=virtual faults=[{machine: d0, at_s: 1}], safe"
    assert (code, out) == (0, [f"{INSTALL} {repository}", command])
    assert err == ["emu: making .venv with Python 3.11.7", "emu: installing emu and what it needs into .venv (once)"]
    assert use("emu", "seed=1") == (0, ["-m emu seed=1, safe"], [])


def test_torch_comes_with_the_first_start_that_needs_it(use, repository):
    assert use("emu", "seed=1")[1] == [f"{INSTALL} {repository}", "-m emu seed=1, safe"]
    for needs_it in ("experiment=mixed", "experiment=[validate,mixed]", "execution=torch", "transfer=gloo"):
        (repository / ".venv/installed").unlink()
        installs = [f"{INSTALL} {repository}", f"{INSTALL} {repository}[torch]"]
        assert use("emu", "-q", needs_it)[1] == [*installs, f"-m emu -q {needs_it}, safe"]
        assert use("emu", needs_it)[1] == [f"-m emu {needs_it}, safe"]
    assert use("emu", "seed=1")[1] == ["-m emu seed=1, safe"]


@pytest.mark.parametrize("refused", ["execution=torch", "experiment=mixed"])
def test_what_is_refused_installs_no_torch(use, repository, refused):
    assert use("emu", refused, "runtime=virtual")[1] == [f"{INSTALL} {repository}", f"-m emu {refused} runtime=virtual, safe"]


def test_the_tests_need_more_and_bring_what_the_emulator_needs(use, repository):
    use("emu")
    code, out, err = use("test", "-k", "cli")
    assert (code, out) == (0, [f"{INSTALL} {repository}[test,torch,nixl,compile]", *GATES, "-m pytest -k cli"])
    assert err == ["test: installing emu[test,torch,nixl,compile] and what it needs into .venv (once)"]
    assert use("test") == (0, [*GATES, "-m pytest"], [])
    assert use("emu") == (0, ["-m emu, safe"], [])


@pytest.mark.parametrize("gate", GATES)
def test_no_test_runs_where_lint_or_types_are_wrong(use, gate):
    code, out, _ = use("test", fails=f'"{gate.removeprefix("-m ")}"')
    assert code == 1
    assert out[-1] == gate


def test_another_pyproject_is_installed_again(use, repository):
    use("emu")
    (repository / "pyproject.toml").write_text("[project]\nname = 'emu'\n")
    assert use("emu")[1] == [f"{INSTALL} {repository}", "-m emu, safe"]


def test_a_broken_environment_is_made_again(use, repository):
    write_python(repository / ".venv/bin/python", supported=False)
    (repository / ".venv/half").touch()
    assert use("emu")[1] == [f"{INSTALL} {repository}", "-m emu, safe"]
    assert not (repository / ".venv/half").exists()


def test_no_python_that_is_supported(use):
    line = "emu: needs Python 3.11 or 3.12 on PATH as python3.11, python3.12 or python3; found Python 3.11.7"
    assert use("emu", supported=False) == (1, [], [line])


def test_a_python_without_venv(use, repository):
    line = (
        "test: this Python cannot make virtual environments; "
        "install the package python3.11-venv (apt-get install python3.11-venv)"
    )
    assert use("test", ensurepip=False) == (1, [], [line])
    assert not (repository / ".venv").exists()


@pytest.mark.parametrize("shell", [[], ["sh"], ["bash"]])
def test_it_is_found_through_a_link_and_runs_in_any_shell(use, repository, tmp_path, shell):
    link = tmp_path / "anywhere/emulate"
    link.parent.mkdir()
    link.symlink_to(repository / "tools/emu")
    assert use(link, "seed=1", shell=shell)[1] == [f"{INSTALL} {repository}", "-m emu seed=1, safe"]
    assert use("test", shell=shell)[:2] == (0, [f"{INSTALL} {repository}[test,torch,nixl,compile]", *GATES, "-m pytest"])


def test_a_path_with_a_space(use, repository, tmp_path):
    spaced = repository.rename(tmp_path / "a repository")
    assert use(spaced / "tools/emu", "seed=1", shell=["sh"])[1] == [f"{INSTALL} {spaced}", "-m emu seed=1, safe"]


def test_an_environment_of_the_old_name_is_upgraded(use, repository):
    use("emu")
    (repository / "pyproject.toml").write_text("[project]\nname = 'emu-serving'\n")
    (repository / ".venv/lib/python3.11/site-packages/emu-0.1.0.dist-info").mkdir(parents=True)
    (repository / "emu.egg-info").mkdir()
    uninstall = "-m pip uninstall -qq --disable-pip-version-check -y emu"
    assert use("emu")[1] == [uninstall, f"{INSTALL} {repository}", "-m emu, safe"]
    assert not (repository / "emu.egg-info").exists()
