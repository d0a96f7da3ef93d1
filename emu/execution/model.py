"""A model that a real machine can execute, and what the emulator knows of it: the targets of `conf/model/`."""

from dataclasses import dataclass
from pathlib import Path

from emu.core import setting
from emu.core.cluster import Cluster
from emu.core.paged_machines import PagedMachines
from emu.core.specs import ModelSpec
from emu.execution.torch_engine.architecture import Architecture
from emu.execution.torch_engine.weight_files import weight_files

DTYPE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True, slots=True)
class Executable:
    """What an engine loads: the network, the format of its numbers (fp32, fp16 or bf16), and the folder with its weights
    in safetensors; '' for random ones."""

    architecture: Architecture
    dtype: str
    checkpoint: str


def executable_of(model: ModelSpec) -> Executable:
    """What an engine loads of a model that can be executed."""
    assert isinstance(model.executable, Executable)
    return model.executable


def block_tokens_of(cluster: Cluster) -> int:
    """Tokens of a KV block of machines that can execute, which have such blocks."""
    assert isinstance(cluster.kind, PagedMachines)
    return cluster.kind.block_tokens


def random_model(name: str, dtype: str, config: dict) -> ModelSpec:
    """A model with random weights, of the shapes in `config`, the content of a Hugging Face config.json."""
    return _spec(name, Executable(Architecture.from_config(config, "model.config"), dtype, ""))


def checkpoint_model(path: str, dtype: str, weights: str) -> ModelSpec:
    """The model of a Hugging Face checkpoint in folder `path`. `dtype`: auto is the checkpoint's. `weights`: checkpoint, or
    random ones of the same shapes. Raises EngineError where a file is missing."""
    folder = Path(path).expanduser().resolve()  # real machines may be in another directory
    architecture = Architecture.from_folder(str(folder))
    setting.one_of("model.weights", weights, ("checkpoint", "random"))
    if weights == "checkpoint":
        weight_files(folder)
    dtype = architecture.dtype if dtype == "auto" else dtype
    return _spec(folder.name, Executable(architecture, dtype, str(folder) if weights == "checkpoint" else ""))


def _spec(name: str, executable: Executable) -> ModelSpec:
    setting.one_of("model.dtype", executable.dtype, tuple(DTYPE_BYTES))
    a = executable.architecture
    return ModelSpec(
        name=name,
        num_params=a.num_params,
        num_layers=a.num_layers,
        hidden_size=a.hidden_size,
        num_heads=a.num_heads,
        num_kv_heads=a.num_kv_heads,
        head_dim=a.head_dim,
        dtype_bytes=DTYPE_BYTES[executable.dtype],
        executable=executable,
    )
