"""Tiny random Hugging Face checkpoints: small enough for a test, irregular enough to tell a wrong reading from a right one."""

from pathlib import Path
from typing import Any

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHAPES = {
    "vocab_size": 199,
    "hidden_size": 48,
    "intermediate_size": 88,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
    "initializer_range": 0.2,  # 0.02 would leave all tokens nearly as likely as each other
}
# A Hugging Face config.json of a Llama that takes a millisecond a step.
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
# By name: transformers' class, what differs from SHAPES, and how it is saved.
CHECKPOINTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama_llama3_rope": ("Llama", {"rope_parameters": LLAMA3_ROPE}, {}),
    "llama_tied": ("Llama", {"tie_word_embeddings": True}, {}),
    "llama_biased": ("Llama", {"attention_bias": True, "mlp_bias": True}, {}),
    "llama_linear_rope_sharded": (
        "Llama",
        {"head_dim": 16, "rope_parameters": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0}},
        {"max_shard_size": "100KB"},
    ),
    "llama_multi_head": ("Llama", {"num_key_value_heads": 6}, {}),
    "mistral": ("Mistral", {"sliding_window": None}, {}),
    "qwen2": ("Qwen2", {}, {}),
    "qwen3": ("Qwen3", {"head_dim": 16}, {}),
    "qwen3_tied_sharded": ("Qwen3", {"head_dim": 10, "tie_word_embeddings": True}, {"max_shard_size": "50KB"}),
}


def save_checkpoint(folder: Path, name: str, dtype: str = "float32") -> Any:
    """Save the checkpoint of that name in `folder` and return its model (transformers', float32)."""
    import torch
    import transformers

    kind, changes, saving = CHECKPOINTS[name]
    torch.manual_seed(sorted(CHECKPOINTS).index(name))
    config = getattr(transformers, f"{kind}Config")(**{**SHAPES, **changes})
    model = getattr(transformers, f"{kind}ForCausalLM")(config).to(getattr(torch, dtype)).eval()
    for weight_name, weight in model.named_parameters():
        if weight.ndim == 1:  # norms and biases are born as ones and zeros, which hides where they are left out
            torch.nn.init.normal_(weight, 0.0 if weight_name.endswith(".bias") else 1.0, 0.3)
    model.save_pretrained(folder, **saving)
    return type(model).from_pretrained(folder, dtype=torch.float32)  # not model.float(): bfloat16 has spoilt its angles
