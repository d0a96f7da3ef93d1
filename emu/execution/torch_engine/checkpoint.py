"""The weights of a model: from a Hugging Face checkpoint's safetensors, or random."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from emu.execution.torch_engine.errors import EngineError
from emu.execution.torch_engine.transformer import Transformer
from emu.execution.torch_engine.weight_files import weight_files
from emu.install import install_command

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@torch.inference_mode()
def load_weights(model: Transformer, folder: str) -> None:
    """Fill the model with the checkpoint's weights, converted to its dtype.

    Each tensor is mapped from its file and copied to its place, so that no second copy of the model exists. Raises
    EngineError where a file or a tensor is missing, unexpected or of another shape.
    """
    wanted = dict(model.weights())
    for path, name, tensor in _tensors(Path(folder)):
        if name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and model.output is None):
            continue  # old checkpoints hold what follows from the configuration, or a tied weight a second time
        place = wanted.pop(name, None)
        if place is None:
            raise EngineError(f"{path}: tensor {name} is none of this architecture's, or there twice")
        if tensor.shape != place.shape:
            raise EngineError(f"{path}: tensor {name} has shape {list(tensor.shape)}; expected {list(place.shape)}")
        if tensor.dtype not in FLOATS:
            raise EngineError(f"{path}: tensor {name} is {tensor.dtype}; expected float32, float16 or bfloat16")
        place.copy_(tensor)
    if wanted:
        more = f" and {len(wanted) - 1} more" if len(wanted) > 1 else ""
        raise EngineError(f"{folder}: tensor {next(iter(wanted))}{more} missing from its safetensors")


@torch.inference_mode()
def randomize_weights(model: Transformer, seed: int = 0) -> None:
    """Fill the model with random weights, made where they stay.

    Matrices are normal with a deviation of 1 / sqrt(inputs), so that what goes through them keeps its size; norms are 1 and
    biases 0.
    """
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    for name, weight in model.weights():
        if weight.ndim > 1:
            weight.normal_(0.0, 1 / math.sqrt(weight.shape[1]), generator=generator)
        else:
            weight.fill_(0.0 if name.endswith(".bias") else 1.0)


def _tensors(folder: Path) -> Iterator[tuple[Path, str, Tensor]]:
    """Every tensor of the checkpoint: its file, name and content, mapped from the file."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise EngineError(
            f"{folder}: reading a checkpoint needs the library safetensors: {install_command('torch')}"
        ) from error
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118, it is no mapping
                    yield path, name, file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise EngineError(f"{path}: no safetensors file: {error}") from error
