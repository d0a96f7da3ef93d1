from dataclasses import replace

import pytest
import yaml

from emu import compose as composition
from emu.build import build, compose, plain
from emu.config_error import ConfigError
from emu.core.setting import SettingError
from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing.model import TimingError
from emu.execution.calibration import host
from emu.execution.calibration.host import HostTiming, digest
from emu.execution.calibration.job import Effort, Job
from emu.execution.model import random_model
from emu.results.summary import summarize
from tests.tiny_checkpoints import CONFIG

pytest.importorskip("torch")

MODEL = random_model("tiny", "fp32", CONFIG)
HARDWARE = HardwareSpec("h", 1, 3_000_000, 1.0, 1.0, 0, 1.0, 0.0, 1.0, 1.0, 0.0)
JOB = Job(MODEL, "h", "cpu", 1, 100, 16, 0, Effort(True, 1, 0.001, 0.0, 5.0))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working directory. A calibration there takes no longer than it must."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(host, "QUICK", JOB.effort)
    return tmp_path / "runs" / "calibrations"


def test_it_calibrates_once_and_uses_that_from_then_on(folder, monkeypatch, capfd):
    family = HostTiming("h", "cpu", 1, 0, 1.0, 1.0)
    timing = family.for_machine(MODEL, HARDWARE)
    assert timing.decode_s(1, 10) > 0 and timing.relative_error([], 1, 10) is not None
    assert family.provenance.is_measured and family.provenance.name == "host"
    assert family.provenance.source.startswith("emu calibrate on ") and "held out" in family.provenance.error
    [path] = folder.glob("*.yaml")
    assert "timing=host" in path.read_text()
    assert "calibrating tiny on cpu: warming up" in capfd.readouterr().err
    monkeypatch.setattr(host.subprocess, "Popen", None)
    assert family.for_machine(MODEL, HARDWARE).decode_s(1, 10) == timing.decode_s(1, 10)
    slower = HostTiming("h", "cpu", 1, 0, 1.0, 0.5).for_machine(MODEL, HARDWARE)
    assert slower.decode_s(1, 10) == pytest.approx(2 * timing.decode_s(1, 10))
    assert slower.prefill_s([10]) == timing.prefill_s([10])


@pytest.mark.parametrize("lacks", ["error", "fits", None])
def test_a_calibration_that_does_not_say_where_it_comes_from_is_made_anew(folder, monkeypatch, lacks):
    content = yaml.safe_load((composition.CONF_DIR / "timing" / "llama_30m_cpu.yaml").read_text())
    content["fits"] = {MODEL.name: {HARDWARE.name: content["fits"]["llama_30m"]["cpu_core"]}}
    folder.mkdir(parents=True)
    path = folder / "kept.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if key != lacks}))
    made = []
    monkeypatch.setattr(host, "digest", lambda job: "kept")
    monkeypatch.setattr(host, "_calibrate", lambda job, path: made.append(path) or content)
    family = HostTiming("h", "cpu", 1, 0, 1.0, 1.0)
    assert family.for_machine(MODEL, HARDWARE).decode_s(1, 10) > 0
    assert [path.resolve() for path in made] == ([path] if lacks else [])


@pytest.mark.parametrize("experiment", [["experiment=validate"], ["experiment=mixed", "~execution.machines"]])
def test_experiments_by_it_can_be_valid(folder, monkeypatch, experiment):
    folder.mkdir(parents=True)
    (folder / "kept.yaml").write_text((composition.CONF_DIR / "timing" / "llama_30m_cpu.yaml").read_text())
    monkeypatch.setattr(host, "digest", lambda job: "kept")
    short = ["runtime=virtual", "execution=emulated", "workload.duration_s=5", "workload.rate_rps=0.3"]
    plan = build(compose([*experiment, *short]))
    record = plan.run(run_dir=folder, log_events=False)
    summary = summarize(record, 0.0, plan.verdict, plan.service_levels, plan.power)
    assert (summary["verdict"], summary["verdict_reasons"]) == ("VALID", [])
    assert (summary["timing"]["name"], summary["timing"]["date"]) == ("host", "2026-11-28 05:52 UTC")


def test_what_fails_is_one_line(folder):
    with pytest.raises(TimingError, match=r"timing=host: the calibration of tiny failed: device=cuda:99: expected cpu"):
        HostTiming("h", "cuda:99", 1, 0, 1.0, 1.0).for_machine(MODEL, HARDWARE)
    assert not list(folder.glob("*.yaml"))


def test_only_the_hardware_that_stands_for_this_host_has_its_timing():
    with pytest.raises(TimingError, match=r"hardware dgx: timing=host is of this host, which timing.hardware=h stands for"):
        HostTiming("h", "cpu", 1, 0, 1.0, 1.0).for_machine(MODEL, replace(HARDWARE, name="dgx"))


def test_only_models_that_can_be_executed():
    with pytest.raises(TimingError, match="model paper is known by its timing only"):
        HostTiming("h", "cpu", 1, 0, 1.0, 1.0).for_machine(ModelSpec("paper", 10, 1, 1, 1, 1, 1), HARDWARE)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (("gpu", 1, 0, 1, 1), "timing.device=gpu: expected cpu, cuda or cuda:N"),
        (("cpu", 0, 0, 1, 1), "timing.num_threads=0: expected a whole number from 1 to 1024"),
        (("cpu", 1, -1, 1, 1), "timing.num_beside=-1: expected a whole number from 0 to 1024"),
        (("cpu", 1, 0, 0, 1), "timing.prefill_speed=0: expected a number > 0"),
        (("cpu", 1, 0, 1, -2), "timing.decode_speed=-2: expected a number > 0"),
    ],
)
def test_settings_out_of_range_are_refused(values, text):
    with pytest.raises(SettingError, match=text):
        HostTiming("h", *values)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_threads": 2},
        {"num_beside": 1},
        {"hardware": "g"},
        {"device": "cuda"},
        {"max_kv_blocks": 101},
        {"model": random_model("tiny", "bf16", CONFIG)},
        {"model": random_model("tiny", "fp32", {**CONFIG, "vocab_size": 64})},
    ],
    ids=str,
)
def test_another_subject_has_a_calibration_of_its_own(changes):
    assert digest(replace(JOB, **changes)) != digest(JOB) == digest(replace(JOB))


def test_code_that_changes_is_calibrated_anew(monkeypatch):
    before = digest(JOB)
    monkeypatch.setattr(host, "CODE", host.CODE[:-1])
    assert digest(JOB) != before


def test_a_configuration_with_it_is_refused_in_one_line():
    config = plain(compose(["timing=host", "runtime=virtual", "workload=fixed", "workload.duration_s=1"]))
    with pytest.raises(ConfigError, match="no timing for hardware dgx_h100: timing=host is of this host"):
        build(config)
