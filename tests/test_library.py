"""The library does what the command line does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import emu
from emu.config_error import ConfigError
from emu.run_directory import RunDirectoryError

ROOT = Path(__file__).parents[1]
TINY = ("runtime=virtual", "workload=fixed", "workload.duration_s=2", "workload.rate_rps=2")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_run_is_that_of_the_command(tmp_path):
    result = emu.run(TINY, tmp_path / "mine")
    command = [sys.executable, "-m", "emu", *TINY, "hydra.run.dir=theirs"]
    subprocess.run(command, check=True, capture_output=True)
    loaded = emu.load("theirs")
    assert (result.directory / "requests.parquet").read_bytes() == (tmp_path / "theirs/requests.parquet").read_bytes()
    assert result.summary | {"host": {}} == loaded.summary | {"host": {}}
    assert sorted(path.name for path in result.directory.iterdir()) == sorted(
        path.name for path in loaded.directory.iterdir() if path.name != "emu.log"
    )
    assert (result.directory / ".hydra/config.yaml").read_text() == (tmp_path / "theirs/.hydra/config.yaml").read_text()
    assert result.verdict == loaded.summary["verdict"]
    assert result.is_valid == (result.verdict == "VALID")
    assert result.requests.num_rows == result.summary["requests"]["submitted"] > 0
    assert set(result.requests["status"].to_pylist()) == {"finished"}


def test_without_a_directory_it_is_where_the_command_puts_it(tmp_path, capsys):
    result = emu.run(TINY)
    assert result.directory.parent.parent == tmp_path / "runs"
    assert capsys.readouterr() == ("", "")


def test_a_sweep_goes_on_in_its_directory(tmp_path, capsys):
    sweep = emu.sweep([*TINY, "seed=1,2"], tmp_path / "a, b")
    assert [result.directory.name for result in sweep.results] == ["0", "1"]
    assert sweep.table["seed"].to_pylist() == [1, 2]
    assert sweep.table["status"].to_pylist() == ["finished"] * 2
    assert len(capsys.readouterr().out.splitlines()) == 2
    again = emu.sweep([*TINY, "seed=1,2"], tmp_path / "a, b")
    assert [result.summary for result in again.results] == [result.summary for result in sweep.results]
    assert capsys.readouterr().out == ""


def test_wrong_input_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"^workload\.rate_rps=fast: expected a number"):
        emu.run([*TINY, "workload.rate_rps=fast"])
    with pytest.raises(ConfigError, match=r"^seed=1 seed=1|run 1 is run 0 again"):
        emu.sweep([*TINY, "seed=1,1"])
    with pytest.raises(ValueError, match=r"/nothing: no summary\.json of a run that came to its end$"):
        emu.load("nothing")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(RunDirectoryError, match="holds file already"):
        emu.run(TINY, "full")


def test_importing_emu_loads_neither_hydra_nor_ray():
    program = "import emu, sys; assert emu.__version__; print({'hydra', 'ray', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "set()\n"
    with pytest.raises(AttributeError, match=r"^module 'emu' has no attribute 'runs'$"):
        emu.runs  # noqa: B018


def test_the_program_of_the_readme_runs(capsys):
    [program] = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    exec(compile(program, "README.md", "exec"), {})
    assert capsys.readouterr().out.count("\n") > 2
