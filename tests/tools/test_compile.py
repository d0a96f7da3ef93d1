"""The compiled package decides what the source does. Skipped where mypy, a C compiler or Python's headers are missing."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emu.install import install_command

ROOT = Path(__file__).parents[2]
CONVERSATION = ["workload.rate_rps=8", "workload.duration_s=10", "results.events=true"]
SPLIT = ["cluster=splitwise_hh", "cluster.num_prompt=3", "cluster.num_token=2", *CONVERSATION]
SCENARIOS = {
    "split, contention, layer by layer": [*SPLIT, "transfer.contention=true", "transfer.layerwise_min_tokens=100"],
    "mixed batches": ["cluster=baseline_h100", "cluster.num_machines=3", "batching=mixed_continuous", *CONVERSATION],
    "chunked prefill": ["cluster=baseline_h100", "cluster.num_machines=3", "batching=chunked_prefill", *CONVERSATION],
    "published simulator": ["experiment=splitwise_sim", *SPLIT],
    "a death": [*SPLIT, "faults=[{machine: d0, at_s: 4}]"],
    "late reports": [*SPLIT, "runtime.report_period_s=0.3", "model=bloom_176b"],
}


@pytest.fixture(scope="module")
def tool():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tools")
        yield importlib.import_module("compile")


@pytest.fixture(scope="module")
def compiled(tool, tmp_path_factory):
    """A compiled package, outside the repository."""
    try:
        tool.check_tools()
    except tool.CannotCompile as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("compiled") / "package"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder.parent))  # mypy reports other errors where this is set
        patch.setenv("MYPYC_OPT_LEVEL", "0")  # the C compiler's: the same semantics, in half the time
        tool.compile_package(folder)
    return folder


REHEARSE = """
import json, sys
from pathlib import Path
from emu.rehearse import rehearse
from emu.build import build, compose
for overrides, folder in json.load(sys.stdin):
    Path(folder).mkdir(parents=True)
    rehearse(build(compose(["runtime=virtual", "results.report=false", *overrides])), Path(folder), [], {})
"""


def run(package: Path, folder: Path) -> dict[str, dict[str, object]]:
    """What a run of each scenario with the `emu` of `package` leaves, but for what it says of the host."""
    folders = {name: folder / str(number) for number, name in enumerate(SCENARIOS)}
    asked = json.dumps([(overrides, str(folders[name])) for name, overrides in SCENARIOS.items()])
    environment = os.environ | {"PYTHONPATH": str(package)}
    command = [sys.executable, "-c", REHEARSE]
    done = subprocess.run(command, cwd=package, env=environment, input=asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    left = {}
    for name, place in folders.items():
        left[name] = {file: (place / file).read_bytes() for file in ("requests.parquet", "events.msgpack")}
        left[name]["summary"] = {**json.loads((place / "summary.json").read_text()), "host": None}
    return left


@pytest.fixture(scope="module")
def left(compiled, tmp_path_factory):
    """By the compiled package, and by the sources."""
    folder = tmp_path_factory.mktemp("runs")
    return run(compiled, folder / "compiled"), run(ROOT, folder / "interpreted")


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_compiled_and_interpreted_runs_leave_the_same(left, scenario):
    compiled, interpreted = left
    assert compiled[scenario] == interpreted[scenario]


@pytest.mark.slow
def test_what_is_compiled_is_used_as_long_as_it_is_of_these_sources(tool, compiled):
    show = [sys.executable, "-c", "import emu.core.machine, emu.runtime.virtual_loop as loop; print(loop.__file__)"]
    shown = subprocess.run(show, env=os.environ | {"PYTHONPATH": str(compiled)}, cwd=compiled, capture_output=True, text=True)
    assert shown.stdout.startswith(str(compiled)) and Path(shown.stdout.strip()).suffix in (".so", ".pyd")
    assert tool.is_current(compiled)
    (compiled / tool.STAMP).write_text("of other sources")
    assert not tool.is_current(compiled)


def test_without_mypy_it_says_what_to_install(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "find_spec", lambda name: None)
    monkeypatch.setattr(tool, "COMPILED", tmp_path / "package")
    monkeypatch.setattr(sys, "argv", ["compile.py"])
    with pytest.raises(SystemExit) as exit_:
        tool.main()
    assert exit_.value.code == 2
    assert capsys.readouterr().err == f"compile.py: mypyc is missing: {install_command('compile')}\n"
    assert list(tmp_path.iterdir()) == []


def test_what_was_never_compiled_is_not_used(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "COMPILED", tmp_path / "package")
    monkeypatch.setattr(sys, "argv", ["compile.py", "--path"])
    with pytest.raises(SystemExit) as exit_:
        tool.main()
    assert exit_.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "run python tools/compile.py" in printed.err
