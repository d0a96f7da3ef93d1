"""What can be wrong with a checkpoint's files, one line each; and random weights."""

import json

import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

from emu.execution.torch_engine.architecture import Architecture  # noqa: E402
from emu.execution.torch_engine.checkpoint import load_weights, randomize_weights  # noqa: E402
from emu.execution.torch_engine.errors import EngineError  # noqa: E402
from emu.execution.torch_engine.transformer import Transformer  # noqa: E402

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 20,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
LAYER = "model.layers.0."


def make_model(**changes):
    return Transformer(Architecture.from_config({**CONFIG, **changes}, "here"), torch.float32, torch.device("cpu"))


@pytest.fixture
def tensors():
    model = make_model()
    randomize_weights(model)
    return {name: weight.clone() for name, weight in model.weights()}


def load(folder, **changes):
    model = make_model(**changes)
    load_weights(model, str(folder))
    return dict(model.weights())


def refusal(folder):
    with pytest.raises(EngineError) as error:
        load(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_saved_is_loaded_and_what_is_of_no_use_left_out(tmp_path, tensors):
    more = {**tensors, f"{LAYER}self_attn.rotary_emb.inv_freq": torch.ones(2)}
    safetensors_torch.save_file(more, tmp_path / "model.safetensors")
    assert all(torch.equal(weight, tensors[name]) for name, weight in load(tmp_path).items())
    assert "lm_head.weight" not in load(tmp_path, tie_word_embeddings=True)


def test_shards_are_loaded_and_a_missing_one_named(tmp_path, tensors):
    names = list(tensors)
    shards = {"a.safetensors": names[:4], "b.safetensors": names[4:6], "c.safetensors": names[6:]}
    for shard, own in shards.items():
        safetensors_torch.save_file({name: tensors[name] for name in own}, tmp_path / shard)
    index = {"weight_map": {name: shard for shard, own in shards.items() for name in own}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load(tmp_path).keys() == tensors.keys()
    (tmp_path / "b.safetensors").unlink()
    expected = f"{tmp_path}: 1 of 3 files in model.safetensors.index.json are missing: b.safetensors"
    assert refusal(tmp_path) == expected
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert refusal(tmp_path).endswith("expected a JSON object with weight_map, from tensors to files")


def test_tensors_that_are_missing_unexpected_or_of_another_shape_or_type_are_named(tmp_path, tensors):
    path = tmp_path / "model.safetensors"

    def saved(**changes):
        kept = {name: tensor for name, tensor in {**tensors, **changes}.items() if tensor is not None}
        safetensors_torch.save_file(kept, path)
        return refusal(tmp_path)

    down = f"{LAYER}mlp.down_proj.weight"
    assert saved(**{down: None}) == f"{tmp_path}: tensor {down} missing from its safetensors"
    two = saved(**{down: None, "lm_head.weight": None})
    assert two == f"{tmp_path}: tensor {down} and 1 more missing from its safetensors"
    bias = f"{LAYER}self_attn.q_proj.bias"
    assert saved(**{bias: torch.ones(8)}) == f"{path}: tensor {bias} is none of this architecture's, or there twice"
    assert saved(**{down: torch.ones(8, 13)}) == f"{path}: tensor {down} has shape [8, 13]; expected [8, 12]"
    integers = saved(**{down: torch.ones(8, 12, dtype=torch.int8)})
    assert integers == f"{path}: tensor {down} is torch.int8; expected float32, float16 or bfloat16"


def test_a_file_that_is_none_and_a_folder_without_weights(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path}: no weights; expected model.safetensors or model.safetensors.index.json"
    (tmp_path / "model.safetensors").write_bytes(b"not weights at all")
    assert refusal(tmp_path).startswith(f"{tmp_path / 'model.safetensors'}: no safetensors file: ")


def test_random_weights_are_of_the_seed_and_keep_activations_in_range():
    first, same, other = make_model(), make_model(), make_model()
    randomize_weights(first, 1)
    randomize_weights(same, 1)
    randomize_weights(other, 2)
    matrices = [name for name, weight in first.weights() if weight.ndim > 1]
    ours, theirs, others = dict(first.weights()), dict(same.weights()), dict(other.weights())
    assert all(torch.equal(ours[name], theirs[name]) and not torch.equal(ours[name], others[name]) for name in matrices)
    logits = first.logits(torch.randn(50, 8, generator=torch.Generator().manual_seed(1)))
    assert 0.3 < logits.std() < 3
