"""Files from anywhere end in one line, with the place: deeply nested, of the wrong kinds, huge, or leading elsewhere."""

import json
import os

import pytest

from emu.build import compose
from emu.config_error import ConfigError
from emu.execution.calibration.host import _kept
from emu.execution.calibration.measurements import CalibrationError, MeasurementFile
from emu.execution.torch_engine.architecture import Architecture, ArchitectureError
from emu.execution.torch_engine.errors import EngineError
from emu.execution.torch_engine.weight_files import INDEX_FILE, SINGLE_FILE, weight_files
from emu.provisioning.ledger import ProbeLog
from emu.results.sweep_table import read_json
from emu.workload.tokenizer import token_ids
from emu.workload.workload import WorkloadError

DEEP = "[" * 100_000
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@pytest.mark.parametrize("content", [DEEP, '{"a":' * 100_000, "[]", "\x00", "1" * 10_000])
def test_a_config_that_is_none(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ArchitectureError) as refused:
        Architecture.from_folder(str(tmp_path))
    assert str(refused.value).startswith(f"{tmp_path / 'config.json'}: ") and "\n" not in str(refused.value)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), os.mkdir])
def test_a_config_that_is_no_file(tmp_path, make):
    make(tmp_path / "config.json")
    with pytest.raises(ArchitectureError, match=r"config\.json: (not a regular file|Is a directory)"):
        Architecture.from_folder(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"architectures": [["LlamaForCausalLM"]]}, "architectures=['LlamaForCausalLM']: expected one of "),
        ({"architectures": [1, None]}, "architectures=1, None: expected one of "),
        ({"architectures": {"a": 1}}, "architectures={'a': 1}: expected one of "),
        ({"architectures": None, "model_type": ["llama"]}, "architectures=['llama']ForCausalLM".lower()[:15]),
        *(
            ({key: 2**60}, f"{key}={2**60}: expected a whole number from 1 to 1048576")
            for key in LLAMA
            if key.endswith("size") and key != "vocab_size"
        ),
        ({"vocab_size": 2**60}, f"vocab_size={2**60}: expected a whole number from 1 to 2147483647"),
        ({"num_hidden_layers": 2**60}, f"num_hidden_layers={2**60}: expected a whole number from 1 to 1048576"),
        ({"max_position_embeddings": 2**60}, f"max_position_embeddings={2**60}: expected a whole number from 1 to 2147483647"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps=1000"),
        ({"eos_token_id": [2**60]}, f"eos_token_id=[{2**60}]: expected a token id"),
        ({"eos_token_id": [[1]]}, "eos_token_id=[[1]]: expected a token id"),
        ({"rope_scaling": {"rope_type": ["llama3"]}}, "rope_scaling.rope_type=['llama3']: expected one of "),
        ({"rope_scaling": [1]}, "rope_scaling=[1]: expected a mapping"),
        ({"quantization_config": [1]}, "quantization_config=[1]: expected a mapping"),
        ({"architectures": ["Qwen2ForCausalLM"], "layer_types": [["x"], {}]}, "layer_types=['x'],{}: expected full_attention"),
        ({"architectures": ["Qwen2ForCausalLM"], "layer_types": 3}, "layer_types=3: expected full_attention"),
    ],
)
def test_a_config_of_the_wrong_kinds_and_sizes(change, problem):
    with pytest.raises(ArchitectureError) as refused:
        Architecture.from_config({**LLAMA, **change}, "config.json")
    assert str(refused.value).startswith(f"config.json: {problem}")


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", 5, "a\0b"])
def test_weights_are_files_of_the_checkpoint(tmp_path, shard):
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"model.norm.weight": shard}}))
    with pytest.raises(EngineError) as refused:
        weight_files(tmp_path)
    assert (
        str(refused.value) == f"{tmp_path / INDEX_FILE}: weight_map has the file {shard!r}; expected names of files beside it"
    )


@pytest.mark.parametrize("content", [DEEP, '{"weight_map": [1]}', '{"weight_map": {"a": ["b"]}}', "3"])
def test_an_index_that_is_none(tmp_path, content):
    (tmp_path / INDEX_FILE).write_text(content)
    with pytest.raises(EngineError, match="expected a JSON object with weight_map, from tensors to files"):
        weight_files(tmp_path)


@pytest.mark.parametrize("content", [DEEP, '{"a":' * 100_000, "[]", "\0"])
def test_a_tokenizer_that_is_none(tmp_path, content):
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(WorkloadError) as refused:
        token_ids(["text"], tmp_path)
    assert str(refused.value).startswith(f"workload.tokenizer={tmp_path}: ") and "\n" not in str(refused.value)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_tokenizer_that_is_no_file(tmp_path, make):
    pytest.importorskip("tokenizers")
    make(tmp_path / "tokenizer.json")
    with pytest.raises(WorkloadError, match="no file"):
        token_ids(["text"], tmp_path)


def test_weights_that_are_no_file(tmp_path):
    os.mkfifo(tmp_path / SINGLE_FILE)
    with pytest.raises(EngineError, match=r"no weights; expected model\.safetensors"):
        weight_files(tmp_path)


def test_a_sweep_a_ledger_and_calibrations(tmp_path):
    path = tmp_path / "file"
    path.write_text(DEEP + "\n")
    assert read_json(path) is None
    with pytest.raises(ConfigError, match="line 1: not a run of a search"):
        ProbeLog(path)
    with pytest.raises(CalibrationError, match="not the measurements of a calibration"):
        MeasurementFile(path, {})
    assert _kept(path) is None  # it is measured anew
    path.write_text("fits: {}\n")
    assert _kept(path) is None


@pytest.mark.parametrize("text", ["[" * 5_000 + "]" * 5_000, "{a: " * 5_000 + "1" + "}" * 5_000])
def test_a_value_or_an_option_that_is_nested_deeply(tmp_path, text):
    (tmp_path / "slo").mkdir()
    (tmp_path / "slo/deep.yaml").write_text(f"x: {text}\n")
    with pytest.raises(ConfigError, match="nested too deeply"):
        compose([f"hydra.searchpath=[file://{tmp_path}]", "slo=deep"])
