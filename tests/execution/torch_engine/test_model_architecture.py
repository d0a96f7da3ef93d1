"""What a config.json may ask for, and in which words the rest is refused."""

import json

import pytest

from emu.execution.torch_engine.architecture import Architecture, ArchitectureError, Rope

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
QWEN3 = {**LLAMA, "architectures": ["Qwen3ForCausalLM"], "num_key_value_heads": 2}
MISTRAL = {**LLAMA, "architectures": ["MistralForCausalLM"], "num_key_value_heads": 2}


def read(config):
    return Architecture.from_config(config, "here")


def test_what_a_config_leaves_out_is_what_transformers_takes():
    llama = read(LLAMA)
    assert (llama.num_kv_heads, llama.head_dim, llama.max_positions, llama.rms_norm_eps) == (4, 16, 2048, 1e-6)
    assert (llama.rope, llama.tied_embeddings, llama.eos_ids, llama.dtype) == (Rope("default", 10000.0), False, (2,), "fp32")
    qwen3 = read(QWEN3)
    assert (qwen3.head_dim, qwen3.max_positions, qwen3.eos_ids, qwen3.qk_norm) == (128, 32768, (), True)
    assert read({**MISTRAL, "sliding_window": None}).max_positions == 131072


def test_a_config_saved_without_a_model_is_known_by_its_type():
    assert read({**QWEN3, "architectures": None, "model_type": "qwen3"}) == read(QWEN3)


def test_the_published_llama_3_1_8b_has_as_many_weights_as_published():
    shapes = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
    config = {**LLAMA, **shapes, "vocab_size": 128256, "num_key_value_heads": 8}
    assert read(config).num_params == 8_030_261_248
    assert read(config).kv_values_per_token == 65_536


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architectures=GPT2LMHeadModel: expected one of LlamaForCausalLM, "),
        ({"architectures": None, "model_type": "gemma"}, "architectures=GemmaForCausalLM: expected one of LlamaForCausalLM, "),
        ({"hidden_size": None}, "hidden_size=missing: expected a whole number from 1 to 1048576"),
        ({"hidden_size": "64"}, "hidden_size=64: expected a whole number from 1 to 1048576"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0: expected a whole number from 1 to 1048576"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3: expected a divisor of num_attention_heads=4"),
        ({"head_dim": 15}, "head_dim=15: expected an even number"),
        ({"hidden_act": "gelu"}, "hidden_act=gelu: expected silu"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps=small: expected a number > 0, at most 1e+12"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings=no: expected true or false"),
        ({"torch_dtype": "float8_e4m3fn"}, "torch_dtype=float8_e4m3fn: expected one of float32, float16, bfloat16"),
        ({"dtype": [1]}, "dtype=[1]: expected one of float32, float16, bfloat16"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5: expected 1.0"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4.0}},
            "rope_scaling.rope_type=yarn: expected one of default, linear, llama3",
        ),
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}},
            "rope_parameters.rope_type=dynamic: expected one of default, linear, llama3",
        ),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling.factor=missing: expected a number > 0, at most 1e+12"),
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
            "rope_scaling.low_freq_factor=missing: expected a number > 0, at most 1e+12",
        ),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}},
            "rope_parameters.partial_rotary_factor=0.25: expected 1.0",
        ),
        (
            {"rope_parameters": {"full_attention": {}, "sliding_attention": {}}},
            "rope_parameters=full_attention,sliding_attention: expected one for all layers",
        ),
        (
            {"quantization_config": {"quant_method": "awq"}},
            "quantization_config.quant_method=awq: expected weights that are not quantized",
        ),
        ({"eos_token_id": "</s>"}, "eos_token_id=</s>: expected a token id, or a list of them"),
    ],
)
def test_what_is_not_computed_is_refused_in_one_line(changes, line):
    with pytest.raises(ArchitectureError) as refusal:
        read({**LLAMA, **changes})
    assert str(refusal.value).startswith(f"here: {line}")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (MISTRAL, "sliding_window=4096: expected null, or max_position_embeddings or more"),
        ({**QWEN3, "use_sliding_window": True}, "use_sliding_window=True: expected false"),
        (
            {**QWEN3, "layer_types": ["full_attention", "sliding_attention"]},
            "layer_types=full_attention,sliding_attention: expected full_attention alone",
        ),
    ],
)
def test_a_sliding_window_in_use_is_refused(config, line):
    with pytest.raises(ArchitectureError, match=f"^here: {line}$"):
        read(config)


def test_a_sliding_window_that_nothing_slides_out_of_is_none():
    assert read({**MISTRAL, "sliding_window": 4096, "max_position_embeddings": 4096}).max_positions == 4096
    assert read({**QWEN3, "sliding_window": 4096, "use_sliding_window": False}).max_positions == 32768


def test_generation_config_says_where_a_sequence_ends(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "eos_token_id": 7}))
    assert Architecture.from_folder(str(tmp_path)).eos_ids == (7,)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [8, 9]}))
    assert Architecture.from_folder(str(tmp_path)).eos_ids == (8, 9)
    (tmp_path / "generation_config.json").write_text("{}")
    assert Architecture.from_folder(str(tmp_path)).eos_ids == ()


def test_a_folder_without_a_config_is_refused_in_one_line(tmp_path):
    with pytest.raises(ArchitectureError, match="no such folder; expected a Hugging Face checkpoint"):
        Architecture.from_folder(str(tmp_path / "nowhere"))
    with pytest.raises(ArchitectureError, match=r"config\.json: No such file or directory; expected"):
        Architecture.from_folder(str(tmp_path))
    for text, problem in (("{", "no JSON"), ("[]", "expected a JSON object")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ArchitectureError, match=problem):
            Architecture.from_folder(str(tmp_path))
