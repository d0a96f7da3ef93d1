"""Models that a real machine can execute, as conf/model describes them."""

import json
from pathlib import Path

import pytest

from emu.build import build, compose, plain
from emu.config_error import ConfigError
from emu.core.specs import ModelSpec
from emu.execution.model import Executable, checkpoint_model, random_model

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "dtype": "bfloat16",
}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "tiny"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "model.safetensors").touch()
    return f"{path}/"


def test_the_spec_follows_the_architecture():
    spec = random_model("tiny", "fp16", CONFIG)
    assert isinstance(spec, ModelSpec) and isinstance(spec.executable, Executable)
    assert (spec.num_layers, spec.hidden_size, spec.num_heads, spec.num_kv_heads, spec.head_dim) == (2, 32, 8, 2, 16)
    assert spec.kv_bytes_per_token == spec.executable.architecture.kv_values_per_token * 2 == 256
    assert spec.num_params == spec.executable.architecture.num_params
    assert (spec.executable.dtype, spec.executable.checkpoint) == ("fp16", "")


def test_a_checkpoint_has_its_own_name_dtype_and_weights(folder):
    spec = checkpoint_model(folder, "auto", "checkpoint")
    assert (spec.name, spec.dtype_bytes, spec.executable.dtype, spec.executable.checkpoint) == ("tiny", 2, "bf16", folder[:-1])
    spec = checkpoint_model(folder, "fp32", "random")
    assert (spec.dtype_bytes, spec.executable.dtype, spec.executable.checkpoint) == (4, "fp32", "")


@pytest.mark.parametrize(
    ("model", "num_params", "kv_bytes"), [("llama_30m", 31_990_272, 16_384), ("llama3_8b", 8_030_261_248, 131_072)]
)
def test_the_options_are_built(model, num_params, kv_bytes):
    values = plain(compose([f"model={model}"]))["model"]
    spec = random_model(values["name"], values["dtype"], values["config"])
    assert (spec.num_params, spec.kv_bytes_per_token) == (num_params, kv_bytes)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["model=checkpoint"], "model.path is required: set model.path=..."),
        (["model=checkpoint", "model.path=/nowhere"], "/nowhere: no such folder; expected a Hugging Face checkpoint: "),
        (["model=llama_30m", "model.dtype=fp8"], "model.dtype=fp8: expected one of fp32, fp16, bf16"),
        (["model=llama_30m", "model.config.hidden_act=relu"], "model.config: hidden_act=relu: expected silu"),
        (["model=llama_30m", "model.config=1"], "model.config=1: expected "),
    ],
)
def test_what_is_no_such_model_is_one_line(overrides, line):
    with pytest.raises(ConfigError) as refusal:
        build(compose(overrides))
    assert str(refusal.value).startswith(line)
    assert "\n" not in str(refusal.value)


def test_a_missing_shard_is_named_before_anything_starts(folder):
    shards = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (Path(folder) / "model.safetensors.index.json").write_text(json.dumps(shards))
    (Path(folder) / "model.safetensors").rename(Path(folder) / "one.safetensors")
    with pytest.raises(ConfigError) as refusal:
        build(compose(["model=checkpoint", f"model.path={folder}"]))
    assert str(refusal.value) == f"{folder[:-1]}: 1 of 2 files in model.safetensors.index.json are missing: two.safetensors"


def test_weights_are_the_checkpoints_or_random(folder):
    with pytest.raises(ConfigError, match=r"^model\.weights=none: expected one of checkpoint, random$"):
        build(compose(["model=checkpoint", f"model.path={folder}", "model.weights=none"]))
