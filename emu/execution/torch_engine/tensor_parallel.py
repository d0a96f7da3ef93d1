"""A model on several devices, each with a share of the heads and intermediate size of each layer (Shoeybi et al. 2019).

Applied from outside to a model that is loaded: the network does not know. q, k, v, gate and up are divided by their outputs, o
and down by their inputs, so that a layer needs two sums over the devices: behind o and behind down.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from emu.execution.torch_engine.architecture import Architecture
from emu.execution.torch_engine.errors import EngineError
from emu.execution.torch_engine.transformer import Layer, Transformer


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """This process as one of those that `torchrun` started, with `device` or, of `cuda`, the one of its local rank."""
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    dist.init_process_group("gloo" if device == "cpu" else "nccl")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def check_divides(architecture: Architecture, num_ranks: int) -> None:
    """Raises EngineError where the layers cannot be shared by so many ranks."""
    for key in ("num_heads", "num_kv_heads", "intermediate_size"):
        if getattr(architecture, key) % num_ranks:
            raise EngineError(f"{num_ranks} processes: expected a divisor of the model's {key}, {getattr(architecture, key)}")


def shard(model: Transformer) -> None:
    """Leave in `model` this rank's share of each layer, and have the ranks' outputs summed. The KV cache to go with it holds
    `model.layers[0].attention.num_kv_heads` heads. Raises EngineError as `check_divides`."""
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    check_divides(model.architecture, num_ranks)
    for layer in model.layers:
        assert isinstance(layer, Layer)
        attention, mlp = layer.attention, layer.mlp
        sizes = [heads * attention.head_dim for heads in (attention.num_heads, attention.num_kv_heads, attention.num_kv_heads)]
        _keep_outputs(attention.qkv, sizes, rank, num_ranks)
        _keep_inputs(attention.o, rank, num_ranks)
        _keep_outputs(mlp.gate_up, [mlp.gate_up.out_features // 2] * 2, rank, num_ranks)
        _keep_inputs(mlp.down, rank, num_ranks)
        attention.num_heads //= num_ranks
        attention.num_kv_heads //= num_ranks
        attention.register_forward_hook(_sum_over_ranks)
        mlp.register_forward_hook(_sum_over_ranks)


def _keep_outputs(linear: nn.Linear, sizes: list[int], rank: int, num_ranks: int) -> None:
    """Of each of the fused matrices, `sizes` outputs each, the rank's part of the outputs."""
    for name, value in list(linear.named_parameters()):
        parts = [matrix.chunk(num_ranks)[rank] for matrix in value.split(sizes)]
        setattr(linear, name, nn.Parameter(torch.cat(parts), requires_grad=False))
    linear.out_features //= num_ranks


def _keep_inputs(linear: nn.Linear, rank: int, num_ranks: int) -> None:
    """The rank's part of the inputs. The bias counts once, at the first rank."""
    part = linear.weight.chunk(num_ranks, dim=1)[rank].clone()
    linear.weight = nn.Parameter(part, requires_grad=False)
    linear.in_features //= num_ranks
    if linear.bias is not None and rank:
        linear.bias.zero_()


def _sum_over_ranks(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    dist.all_reduce(output)
    return output
