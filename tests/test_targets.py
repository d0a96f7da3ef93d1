"""A configuration from elsewhere runs nothing: not what it names, not what Hydra's own node names."""

import os

import pytest

from emu.build import build, build_transfer, compose
from emu.compose import compose_sweep
from emu.config_error import ConfigError

PLAIN = "expected plain data, without _target_"
EVIL = "{_target_: os.system, command: touch evil}"


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path, monkeypatch):
    """A module that says so when it is imported, and os.system that says so when it is called; neither is."""
    (tmp_path / "evil.py").write_text("open('imported', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(os, "system", lambda command: (tmp_path / "called").touch())
    yield
    assert not {"imported", "called"} & {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (f"faults=[{EVIL}]", f"faults[0]._target_=os.system: {PLAIN}"),
        (f"+slo.x={EVIL}", f"slo.x._target_=os.system: {PLAIN}"),
        (f"+other={{x: [[{EVIL}]]}}", f"other.x[0][0]._target_=os.system: {PLAIN}"),
        (f"+timing.fits.llama2_70b.dgx_h100.x={EVIL}", f"timing.fits.llama2_70b.dgx_h100.x._target_=os.system: {PLAIN}"),
        (f"workload.rate_rps={EVIL}", f"workload.rate_rps._target_=os.system: {PLAIN}"),
        ("+_target_=os.system", f"_target_=os.system: {PLAIN}"),
        (
            "metrics._target_=evil.Metrics",
            "metrics._target_=evil.Metrics: expected one of emu.results.settings.MetricsSettings",
        ),
        ("+metrics.x={_target_: evil.Metrics}", f"metrics.x._target_=evil.Metrics: {PLAIN}"),
        (
            "batching._target_=evil",
            "batching._target_=evil: expected one of emu.core.batching.chunked_prefill.ChunkedPrefill, "
            "emu.core.batching.fcfs.Fcfs, emu.core.batching.mixed_continuous.MixedContinuous",
        ),
        # Of emu, and of another group.
        (
            "prediction._target_=emu.execution.calibration.host.HostTiming",
            "prediction._target_=emu.execution.calibration.host.HostTiming: expected one of "
            "emu.workload.prediction.NoPrediction, emu.workload.prediction.NoisyPrediction",
        ),
        (
            "cluster.token_hardware._target_=os.system",
            "cluster.token_hardware._target_=os.system: expected one of emu.core.specs.HardwareSpec",
        ),
        (
            "power._target_={a: 1}",
            "power._target_={'a': 1}: expected one of emu.results.power.PhasePower, emu.results.power.RatedPower",
        ),
    ],
)
def test_only_what_a_group_allows_is_made(override, line):
    with pytest.raises(ConfigError) as refused:
        build(compose(["runtime=virtual", override]))
    assert str(refused.value) == line


def test_an_experiment_from_elsewhere(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/sent.yaml").write_text("# @package _global_\nfaults: [{_target_: evil.Fault}]\n")
    with pytest.raises(ConfigError, match=r"^faults\[0\]\._target_=evil\.Fault: expected plain data"):
        build(compose([f"hydra.searchpath=[file://{tmp_path}]", "+experiment=sent", "runtime=virtual"]))


@pytest.mark.parametrize("place", ["callbacks", "callbacks.x", "job_logging", "hydra_logging.root"])
def test_a_reference_hides_nothing(tmp_path, place):
    (tmp_path / "experiment").mkdir()
    node = "${hidden}"
    for key in reversed(["hydra", *place.split(".")]):
        node = f"{{{key}: {node}}}" if node.startswith("{") else f'{{{key}: "{node}"}}'
    (tmp_path / "experiment/sent.yaml").write_text(f"# @package _global_\n_: {EVIL}\nhidden: {EVIL}\n{node[1:-1]}\n")
    with pytest.raises(ConfigError) as refused:
        compose([f"hydra.searchpath=[file://{tmp_path}]", "+experiment=sent"])
    assert str(refused.value) == f"hydra.{place}=${{hidden}}: expected what is meant, and no reference"


def test_a_reference_in_a_launcher_from_elsewhere(tmp_path):
    (tmp_path / "hydra/launcher").mkdir(parents=True)
    target = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
    (tmp_path / "hydra/launcher/sent.yaml").write_text(f"_target_: {target}\nx: ${{hidden}}\n")
    with pytest.raises(ConfigError, match=r"^hydra\.launcher\.x=\$\{hidden\}: expected what is meant, and no reference"):
        compose([f"hydra.searchpath=[file://{tmp_path}]", "hydra/launcher=sent", f"+hidden={EVIL}"])


@pytest.mark.parametrize("override", ["hydra.searchpath=['${x}']", "hydra.searchpath='${x}'", "hydra.searchpath=null"])
def test_a_search_path_by_reference(override):
    with pytest.raises(ConfigError, match=r"hydra\.searchpath"):
        compose([override])


def test_a_factory_in_logging_from_elsewhere(tmp_path):
    (tmp_path / "hydra/job_logging").mkdir(parents=True)
    (tmp_path / "hydra/job_logging/sent.yaml").write_text("version: 1\nfilters: {x: {(): os.system}}\n")
    with pytest.raises(ConfigError, match=r"^hydra\.job_logging\.filters\.x\.\(\)=os\.system: expected one of logging's own"):
        compose([f"hydra.searchpath=[file://{tmp_path}]", "hydra/job_logging=sent"])


def test_an_unknown_key_below_an_unknown_target_imports_nothing(tmp_path):
    (tmp_path / "workload").mkdir()
    (tmp_path / "workload/sent.yaml").write_text("_target_: evil.Workload\n")
    with pytest.raises(ConfigError, match=r"^workload\.rate_rps: no such setting"):
        compose([f"hydra.searchpath=[file://{tmp_path}]", "workload=sent", "workload.rate_rps=3"])


def test_a_transfer_by_itself_is_checked_as_well():
    with pytest.raises(
        ConfigError, match=r"^transfer\._target_=evil\.T: expected one of emu\.transfer\.settings\.CudaIpcSettings"
    ):
        build_transfer(["transfer._target_=evil.T"])


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("hydra.launcher._target_=os.system", "hydra.launcher._target_=os.system: expected what Hydra's options have there"),
        ("hydra.sweeper._target_=evil.S", "hydra.sweeper._target_=evil.S: expected what Hydra's options have there"),
        (f"+hydra.launcher.x={EVIL}", "hydra.launcher.x._target_=os.system: expected what Hydra's options have there"),
        (f"+hydra.callbacks.x={EVIL}", "hydra.callbacks.x._target_=os.system: expected what Hydra's options have there"),
        (
            "+hydra.callbacks.x={_target_: hydra.experimental.callbacks.pickle.loads}",
            "hydra.callbacks.x._target_=hydra.experimental.callbacks.pickle.loads: expected what Hydra's options have there",
        ),
        (
            "+hydra.job_logging.handlers={x: {class: evil.Handler}}",
            "hydra.job_logging.handlers.x.class=evil.Handler: "
            "expected one of logging's own handlers, and sys.stdout or sys.stderr",
        ),
        (
            "+hydra.hydra_logging.handlers={x: {class: logging.StreamHandler, stream: ext://evil.out}}",
            "hydra.hydra_logging.handlers.x.stream=ext://evil.out: "
            "expected one of logging's own handlers, and sys.stdout or sys.stderr",
        ),
        (
            "+hydra.job_logging.handlers={x: {class: logging.FileHandler, filename: .bashrc}}",
            "hydra.job_logging.handlers.x.filename=.bashrc: expected ${hydra.runtime.output_dir}/${hydra.job.name}.log",
        ),
        (
            "+hydra.job.env_set.LD_PRELOAD=x",
            "hydra.job.env_set={'LD_PRELOAD': 'x'}: expected {}: set the environment in your shell",
        ),
        ("hydra.output_subdir=../x", "hydra.output_subdir=../x: expected the name of a folder in the run's directory, or null"),
        ("hydra.searchpath=[pkg://evil]", "hydra.searchpath=pkg://evil: expected a folder, or file://FOLDER"),
    ],
)
def test_hydra_makes_nothing_of_its_node_either(override, line):
    with pytest.raises(ConfigError) as refused:
        compose([override])
    assert str(refused.value) == line
    with pytest.raises(ValueError) as refused:
        compose_sweep([override, "seed=1,2"])
    assert str(refused.value) == line


@pytest.mark.parametrize("logging", ["default", "stdout", "disabled"])
def test_hydras_own_options_are_good(logging):
    build(compose([f"hydra/job_logging={logging}", "hydra/launcher=joblib", "hydra.output_subdir=null", "runtime=virtual"]))
    compose(["+hydra.callbacks.x={_target_: hydra.experimental.callbacks.LogJobReturnCallback}"])
