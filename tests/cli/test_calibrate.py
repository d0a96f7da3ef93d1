import json
from dataclasses import replace

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from emu.cli import calibrate
from tests.tiny_checkpoints import CONFIG

pytest.importorskip("torch")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, which also takes the place of conf/timing. A calibration takes no longer than it must."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibrate, "CONF", tmp_path)
    monkeypatch.setattr(calibrate, "QUICK", replace(calibrate.QUICK, num_rounds=1, measure_s=0.001, idle_s=0.0))
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "max_position_embeddings": 128}))
    return tmp_path


def test_a_model_by_its_config_alone(folder, capsys):
    options = [
        "--name",
        "tiny_h",
        "--model",
        "tiny",
        "--hardware",
        "h",
        "--config",
        "config.json",
        "--dtype",
        "fp32",
        "--quick",
    ]
    assert calibrate.main(options) == 0
    out = capsys.readouterr().out
    for expected in ("prefill", "decode", "mixed", "between two steps", "what to run next", "timing=tiny_h"):
        assert expected in out
    text = (folder / "tiny_h.yaml").read_text()
    assert "  tiny:\n    h:\n" in text and "emu calibrate --name tiny_h --model tiny" in text
    provenance = instantiate(OmegaConf.load(folder / "tiny_h.yaml")).provenance
    assert provenance.is_measured and provenance.name == "tiny_h" and "(device cpu, 1 thread)" in provenance.source
    assert provenance.error.startswith("prefill ") and " %, decode " in provenance.error
    assert (folder / "runs/calibrations/tiny_h.jsonl").exists()
    assert calibrate.main(options) == 0  # a calibration may be written anew


def test_model_and_hardware_of_conf():
    args = calibrate.arguments(["--name", "x", "--model", "llama_30m", "--hardware", "cpu_core", "model.dtype=bf16"])
    job = calibrate.job_of(args)
    assert (job.model.name, job.model.executable.dtype, job.hardware, job.device) == ("llama_30m", "bf16", "cpu_core", "cpu")
    assert job.block_tokens == 16 and job.max_kv_blocks > 100 and job.effort is calibrate.FULL


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"--name": "Bad Name"}, "--name Bad Name: expected lower case letters"),
        ({"--name": "taken"}, "taken.yaml is there and no calibration"),
        ({"--device": "gpu"}, "--device gpu: expected cpu, cuda or cuda:N"),
        ({"--device": "cuda:99"}, "device=cuda:99: expected"),
        ({"--num-threads": "0"}, "--num-threads 0: expected a whole number >= 1"),
        ({"--num-threads": "two"}, "--num-threads: invalid int value: 'two'"),
        ({"--dtype": "int8"}, "--dtype: invalid choice"),
        ({"--model": "gpt"}, "model=gpt: no such option; expected one of"),
        ({"--model": "llama2_70b", "--hardware": "dgx_h100"}, "llama2_70b: is known by its timing only"),
        ({"--hardware": "abacus"}, "hardware=abacus: no such option; expected one of"),
        ({"--config": "missing.json"}, "--config missing.json: "),
        ({"--config": "taken.yaml"}, "--config taken.yaml: "),
        ({"--config": "config.json", "model.dtype=bf16": None}, "model.dtype=bf16: goes with conf/"),
        ({"model.size=7": None}, "model.size: no such setting"),
        ({"--speed": "1"}, "unrecognized arguments: --speed"),
    ],
)
def test_wrong_arguments_are_one_line(folder, capsys, changes, text):
    (folder / "taken.yaml").write_text("_target_: emu.core.timing.constant.ConstantTiming\n")
    options = {"--name": "x", "--model": "llama_30m", "--hardware": "cpu_core", "--quick": None} | changes
    argv = [part for option, value in options.items() for part in (option, value) if part is not None]
    assert calibrate.main(argv) == 2
    err = capsys.readouterr().err
    assert text in err and err.count("\n") == 1, err
    assert not (folder / "x.yaml").exists()
