"""The shapes of a transformer, read from the `config.json` of a Hugging Face checkpoint.

One network has four names there: Llama, Mistral without a sliding window, Qwen2 (biases at q, k and v) and Qwen3 (RMSNorm over
each head of q and k). What a configuration asks for beyond that is refused rather than left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emu.execution.torch_engine.errors import EngineError
from emu.files import parse_json, read_text

# By architecture what a key is where config.json lacks it, as in transformers' configuration class of that name.
DEFAULTS: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {"max_position_embeddings": 2048, "eos_token_id": 2},
    "MistralForCausalLM": {
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "eos_token_id": 2,
        "sliding_window": 4096,
    },
    "Qwen2ForCausalLM": {"max_position_embeddings": 32768, "num_key_value_heads": 32},
    "Qwen3ForCausalLM": {"max_position_embeddings": 32768, "num_key_value_heads": 32, "head_dim": 128},
}
MAX_SIZE = 1 << 20  # of one dimension, far beyond any model
MAX_POSITIONS = MAX_VOCAB = (1 << 31) - 1  # token ids and positions are 32-bit
MAX_NUMBER = 1e12
ROPE_TYPES = ("default", "linear", "llama3")
DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


class ArchitectureError(EngineError):
    """A configuration of a network that this engine does not compute. The text is one line for the user."""


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding (Su et al. 2021). `factor` and what follows it count where `kind` has a use for them.

    linear: positions divided by `factor`. llama3: frequencies whose wavelength is beyond `original_max_positions` /
    `low_freq_factor` divided by `factor`, those below the same over `high_freq_factor` kept, in between interpolated.
    """

    kind: str
    theta: float
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192


@dataclass(frozen=True, slots=True)
class Architecture:
    """A transformer's shapes. `eos_ids` end a sequence; `dtype` is that of the checkpoint's weights: fp32, fp16 or bf16."""

    name: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    rms_norm_eps: float
    rope: Rope
    tied_embeddings: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool
    eos_ids: tuple[int, ...]
    dtype: str

    @property
    def num_params(self) -> int:
        """Number of weights, a tied embedding counted once."""
        attention_size, kv_size = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        qkv_size = attention_size + 2 * kv_size
        attention = self.hidden_size * (qkv_size + attention_size) + self.qkv_bias * qkv_size + self.o_bias * self.hidden_size
        mlp = 3 * self.hidden_size * self.intermediate_size
        mlp += self.mlp_bias * (2 * self.intermediate_size + self.hidden_size)
        norms = 2 * self.hidden_size + self.qk_norm * 2 * self.head_dim
        embeddings = (1 if self.tied_embeddings else 2) * self.vocab_size * self.hidden_size
        return embeddings + self.num_layers * (attention + mlp + norms) + self.hidden_size

    @property
    def kv_values_per_token(self) -> int:
        """Numbers in the KV cache of one token, over all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim

    @classmethod
    def from_folder(cls, folder: str) -> "Architecture":
        """That of the checkpoint in `folder`. Raises ArchitectureError."""
        config = _read_json(Path(folder), "config.json")
        if (Path(folder) / "generation_config.json").is_file():
            config = {**config, "eos_token_id": _read_json(Path(folder), "generation_config.json").get("eos_token_id")}
        return cls.from_config(config, f"{Path(folder) / 'config.json'}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], place: str) -> "Architecture":
        """That of a `config.json`'s content. `place` is where it comes from, for the text of an ArchitectureError."""
        name = _name(config, place)
        values = _Values({**DEFAULTS[name], **config}, place)
        _refuse_what_is_not_computed(values, name)
        hidden_size, num_heads = values.whole("hidden_size"), values.whole("num_attention_heads")
        num_kv_heads = values.whole("num_key_value_heads", num_heads)
        if num_heads % num_kv_heads:
            raise values.error("num_key_value_heads", f"a divisor of num_attention_heads={num_heads}")
        head_dim = values.whole("head_dim", hidden_size // num_heads)
        if head_dim % 2:
            raise values.error("head_dim", "an even number", head_dim)
        max_positions = values.whole("max_position_embeddings", high=MAX_POSITIONS)
        has_bias = values.flag("attention_bias") if name in ("LlamaForCausalLM", "Qwen3ForCausalLM") else False
        return cls(
            name=name,
            vocab_size=values.whole("vocab_size", high=MAX_VOCAB),
            hidden_size=hidden_size,
            intermediate_size=values.whole("intermediate_size"),
            num_layers=values.whole("num_hidden_layers"),
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            max_positions=max_positions,
            rms_norm_eps=values.number("rms_norm_eps", 1e-6),
            rope=_rope(values, max_positions),
            tied_embeddings=values.flag("tie_word_embeddings"),
            qkv_bias=has_bias or name == "Qwen2ForCausalLM",
            o_bias=has_bias,
            mlp_bias=values.flag("mlp_bias") if name == "LlamaForCausalLM" else False,
            qk_norm=name == "Qwen3ForCausalLM",
            eos_ids=_eos_ids(values),
            dtype=_dtype(values),
        )


class _Values:
    """The values of a configuration; what is wrong with one names its key and its place."""

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        self._values = values
        self._place = place

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`, `default` where it is missing or null."""
        value = self._values.get(key)
        return default if value is None else value

    def below(self, key: str) -> "_Values":
        """Those of the mapping at `key`, with `key.` before each key."""
        return _Values({f"{key}.{name}": value for name, value in self.mapping(key).items()}, self._place)

    def mapping(self, key: str) -> Mapping[str, Any]:
        value = self.get(key, {})
        if not isinstance(value, Mapping):
            raise self.error(key, "a mapping")
        return value

    def error(self, key: str, expected: str, value: Any = None) -> ArchitectureError:
        value = self.get(key) if value is None else value
        return ArchitectureError(f"{self._place}: {key}={value}: expected {expected}")

    def whole(self, key: str, default: int | None = None, high: int = MAX_SIZE) -> int:
        value = self.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= high:
            raise self.error(key, f"a whole number from 1 to {high}", "missing" if value is None else value)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= MAX_NUMBER:
            raise self.error(key, f"a number > 0, at most {MAX_NUMBER:g}", "missing" if value is None else value)
        return float(value)

    def flag(self, key: str) -> bool:
        value = self.get(key, False)
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value


def _name(config: Mapping[str, Any], place: str) -> str:
    # A configuration that was saved without a model has no `architectures`.
    names = config.get("architectures") or [f"{str(config.get('model_type', '')).capitalize()}ForCausalLM"]
    names = [str(name) for name in names] if isinstance(names, list) else [str(names)]
    if len(names) != 1 or names[0] not in DEFAULTS:
        raise ArchitectureError(f"{place}: architectures={', '.join(names)}: expected one of {', '.join(DEFAULTS)}")
    return names[0]


def _refuse_what_is_not_computed(values: _Values, name: str) -> None:
    if values.get("quantization_config"):
        method = values.mapping("quantization_config").get("quant_method", "unknown")
        raise values.error("quantization_config.quant_method", "weights that are not quantized", method)
    if values.get("hidden_act", "silu") != "silu":
        raise values.error("hidden_act", "silu")
    if values.get("partial_rotary_factor", 1.0) != 1.0:
        raise values.error("partial_rotary_factor", "1.0")
    max_positions = values.whole("max_position_embeddings", high=MAX_POSITIONS)
    if name == "MistralForCausalLM" and values.whole("sliding_window", max_positions, MAX_POSITIONS) < max_positions:
        raise values.error("sliding_window", "null, or max_position_embeddings or more")
    if name.startswith("Qwen") and values.get("use_sliding_window", False):
        raise values.error("use_sliding_window", "false")
    layer_types = values.get("layer_types", [])
    if name.startswith("Qwen") and (not isinstance(layer_types, list) or any(kind != "full_attention" for kind in layer_types)):
        named = layer_types if isinstance(layer_types, list) else [layer_types]
        raise values.error("layer_types", "full_attention alone", ",".join(sorted({str(kind) for kind in named})))


def _rope(values: _Values, max_positions: int) -> Rope:
    # transformers 5 writes rope_parameters, with rope_theta in it; before that it was rope_scaling and a rope_theta beside it.
    key = "rope_scaling" if values.get("rope_scaling") else "rope_parameters"
    given = values.mapping(key)
    theta = values.number("rope_theta", 10000.0)
    kind = given.get("rope_type", given.get("type", "default"))
    if any(isinstance(value, Mapping) for value in given.values()):
        raise values.error(key, "one for all layers", ",".join(given))
    if kind not in ROPE_TYPES:
        raise values.error(f"{key}.rope_type", f"one of {', '.join(ROPE_TYPES)}", kind)
    if given.get("partial_rotary_factor", 1.0) != 1.0:
        raise values.error(f"{key}.partial_rotary_factor", "1.0", given["partial_rotary_factor"])
    inner = values.below(key)
    theta = inner.number(f"{key}.rope_theta", theta)
    if kind == "default":
        return Rope(kind, theta)
    factor = inner.number(f"{key}.factor")
    if kind == "linear":
        return Rope(kind, theta, factor)
    original_max_positions = values.get("original_max_position_embeddings", max_positions)
    return Rope(
        kind,
        theta,
        factor,
        inner.number(f"{key}.low_freq_factor"),
        inner.number(f"{key}.high_freq_factor"),
        inner.whole(f"{key}.original_max_position_embeddings", original_max_positions, MAX_POSITIONS),
    )


def _eos_ids(values: _Values) -> tuple[int, ...]:
    given = values.get("eos_token_id", [])
    ids = given if isinstance(given, list) else [given]
    if not all(isinstance(token, int) and not isinstance(token, bool) and 0 <= token <= MAX_VOCAB for token in ids):
        raise values.error("eos_token_id", "a token id, or a list of them")
    return tuple(ids)


def _dtype(values: _Values) -> str:
    key = "torch_dtype" if values.get("dtype") is None else "dtype"  # transformers 5 writes dtype
    name = str(values.get(key, "float32")).removeprefix("torch.")
    if name not in DTYPES:
        raise values.error(key, f"one of {', '.join(DTYPES)}", name)
    return DTYPES[name]


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not folder.is_dir():
        raise ArchitectureError(f"{folder}: no such folder; expected a Hugging Face checkpoint: config.json and safetensors")
    try:
        content = parse_json(read_text(path))
    except OSError as error:
        raise ArchitectureError(f"{path}: {error.strerror}; expected a Hugging Face checkpoint's {name}") from error
    except ValueError as error:
        raise ArchitectureError(f"{path}: no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ArchitectureError(f"{path}: expected a JSON object")
    return content
