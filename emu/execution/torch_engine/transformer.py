"""The transformer of Llama, Mistral, Qwen2 and Qwen3: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

A forward pass takes the tokens of any number of sequences packed one after the other, without padding. How they attend to
what is in the KV cache is the pass's own business (`attention.py`). Shapes in comments:

    T tokens of the pass   E hidden size   F intermediate size   H query heads   K KV heads   D head dimension   V vocabulary
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from emu.execution.torch_engine.architecture import Architecture, Rope


class Pass(Protocol):
    """The tokens of one forward pass and their place in the KV cache."""

    token_ids: Tensor  # (T,) int64
    positions: Tensor  # (T,) int64

    def write(self, layer: int, k: Tensor, v: Tensor) -> None: ...  # k, v: (T, K, D)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...  # q and result: (T, H, D)


class Transformer(nn.Module):
    """The network, its weights not yet filled: `weights` names them as Hugging Face checkpoints do."""

    def __init__(self, architecture: Architecture, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        a = self.architecture = architecture
        kind: dict[str, Any] = {"dtype": dtype, "device": device}
        self.embedding = skip_init(nn.Embedding, a.vocab_size, a.hidden_size, **kind)
        self.layers = nn.ModuleList(Layer(a, kind) for _ in range(a.num_layers))
        self.norm = nn.RMSNorm(a.hidden_size, a.rms_norm_eps, **kind)
        self.output = skip_init(nn.Linear, a.hidden_size, a.vocab_size, bias=False, **kind) if not a.tied_embeddings else None
        self.frequencies = inverse_frequencies(a.rope, a.head_dim).to(device)  # (D/2,)
        self.requires_grad_(False)

    def forward(self, batch: Pass, on_layer: Callable[[int], None] | None = None) -> Tensor:
        """The last layer's output (T, E). `on_layer(layer)` is called when K and V of `layer` are in the cache."""
        x = self.embedding(batch.token_ids)  # (T, E)
        rotation = self.rotation(batch.positions, x.dtype)
        for index, layer in enumerate(self.layers):
            x = layer(x, rotation, index, batch, on_layer)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """float32 (T, V) of the last layer's output (T, E)."""
        output = self.embedding if self.output is None else self.output
        return F.linear(self.norm(x), output.weight).float()

    def rotation(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the angles of rotation, each (T, 1, D/2): the same for all heads and layers."""
        angles = (positions.float()[:, None] * self.frequencies)[:, None]
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight under its name in a checkpoint; those that are fused here are views of their rows."""
        yield "model.embed_tokens.weight", self.embedding.weight
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            yield from ((f"model.layers.{index}.{name}", weight) for name, weight in layer.weights())
        yield "model.norm.weight", self.norm.weight
        if self.output is not None:
            yield "lm_head.weight", self.output.weight


class Layer(nn.Module):
    def __init__(self, a: Architecture, kind: dict) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(a.hidden_size, a.rms_norm_eps, **kind)
        self.attention = Attention(a, kind)
        self.mlp_norm = nn.RMSNorm(a.hidden_size, a.rms_norm_eps, **kind)
        self.mlp = MLP(a, kind)

    def forward(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], index: int, batch: Pass, on_layer: Callable[[int], None] | None
    ) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rotation, index, batch, on_layer)
        return x + self.mlp(self.mlp_norm(x))

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        yield "input_layernorm.weight", self.attention_norm.weight
        yield from ((f"self_attn.{name}", weight) for name, weight in self.attention.weights())
        yield "post_attention_layernorm.weight", self.mlp_norm.weight
        yield from ((f"mlp.{name}", weight) for name, weight in self.mlp.weights())


class Attention(nn.Module):
    def __init__(self, a: Architecture, kind: dict) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = a.num_heads, a.num_kv_heads, a.head_dim
        num_all_heads = a.num_heads + 2 * a.num_kv_heads
        self.qkv = skip_init(nn.Linear, a.hidden_size, num_all_heads * a.head_dim, bias=a.qkv_bias, **kind)
        self.o = skip_init(nn.Linear, a.num_heads * a.head_dim, a.hidden_size, bias=a.o_bias, **kind)
        self.q_norm = nn.RMSNorm(a.head_dim, a.rms_norm_eps, **kind) if a.qk_norm else None
        self.k_norm = nn.RMSNorm(a.head_dim, a.rms_norm_eps, **kind) if a.qk_norm else None

    def forward(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], index: int, batch: Pass, on_layer: Callable[[int], None] | None
    ) -> Tensor:
        H, K, D = self.num_heads, self.num_kv_heads, self.head_dim
        qkv = self.qkv(x).view(-1, H + 2 * K, D)  # (T, H+2K, D)
        if self.q_norm is not None and self.k_norm is not None:
            qk = torch.cat((self.q_norm(qkv[:, :H]), self.k_norm(qkv[:, H : H + K])), dim=1)
        else:
            qk = qkv[:, : H + K]
        qk = rotate(qk, *rotation)  # (T, H+K, D)
        q, k, v = qk[:, :H], qk[:, H:], qkv[:, H + K :]
        batch.write(index, k, v)
        if on_layer is not None:
            on_layer(index)
        return self.o(batch.attend(index, q, k, v).reshape(-1, H * D))  # (T, E)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        sizes = [heads * self.head_dim for heads in (self.num_heads, self.num_kv_heads, self.num_kv_heads)]
        yield from zip(("q_proj.weight", "k_proj.weight", "v_proj.weight"), self.qkv.weight.split(sizes), strict=True)
        yield "o_proj.weight", self.o.weight
        if self.qkv.bias is not None:
            yield from zip(("q_proj.bias", "k_proj.bias", "v_proj.bias"), self.qkv.bias.split(sizes), strict=True)
        if self.o.bias is not None:
            yield "o_proj.bias", self.o.bias
        if self.q_norm is not None and self.k_norm is not None:
            yield "q_norm.weight", self.q_norm.weight
            yield "k_norm.weight", self.k_norm.weight


class MLP(nn.Module):
    def __init__(self, a: Architecture, kind: dict) -> None:
        super().__init__()
        self.gate_up = skip_init(nn.Linear, a.hidden_size, 2 * a.intermediate_size, bias=a.mlp_bias, **kind)
        self.down = skip_init(nn.Linear, a.intermediate_size, a.hidden_size, bias=a.mlp_bias, **kind)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)  # (T, F) each
        return self.down(F.silu(gate).mul_(up))  # (T, E)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        yield from zip(("gate_proj.weight", "up_proj.weight"), self.gate_up.weight.chunk(2), strict=True)
        yield "down_proj.weight", self.down.weight
        if self.down.bias is not None:
            yield from zip(("gate_proj.bias", "up_proj.bias"), self.gate_up.bias.chunk(2), strict=True)
            yield "down_proj.bias", self.down.bias


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (T, heads, D) with element i and i + D/2 of each head turned as a pair, which is Hugging Face's order of them."""
    first, second = x.chunk(2, dim=-1)
    rotated = torch.empty_like(x, memory_format=torch.contiguous_format)
    new_first, new_second = rotated.chunk(2, dim=-1)
    torch.mul(first, cos, out=new_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=new_second).addcmul_(first, sin)
    return rotated


def inverse_frequencies(rope: Rope, head_dim: int) -> Tensor:
    """float32 (D/2,): radians per position of each pair of elements.

    llama3: as in Meta's Llama 3.1 (`apply_scaling` of its reference model).
    """
    frequencies = 1.0 / rope.theta ** (torch.arange(0, head_dim, 2).float() / head_dim)
    if rope.kind == "default":
        return frequencies
    if rope.kind == "linear":
        return frequencies / rope.factor
    # Turns within the original context: 0 of `blend` at low_freq_factor turns and fewer, 1 at high_freq_factor and more.
    turns = rope.original_max_positions * frequencies / (2 * math.pi)
    blend = ((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)).clamp(0, 1)
    return (1 - blend) * frequencies / rope.factor + blend * frequencies
