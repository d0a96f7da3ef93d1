"""What is emulated: the model, the machine's hardware and how much KV cache the one leaves on the other."""

from dataclasses import dataclass

from emu.core import setting


class SpecError(ValueError):
    """A specification that cannot be emulated, such as a model larger than the machine. The text is for the user."""


def _named(group: str, name: str) -> None:
    if not name.strip():
        raise SpecError(f"{group}.name={name}: expected a name that is not blank")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A transformer as the scheduler and the links see it.

    Shapes follow the published configurations; `dtype_bytes` is 2 for fp16 and bf16, for weights and KV cache alike.
    `executable` is what a machine that computes its steps loads; None where the model can only be emulated.
    """

    name: str
    num_params: int
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype_bytes: int = 2
    executable: object | None = None

    def __post_init__(self) -> None:
        _named("model", self.name)
        for key in ("num_params", "num_layers", "hidden_size", "num_heads", "num_kv_heads", "head_dim", "dtype_bytes"):
            setting.positive(f"model.{key}", getattr(self, key))
        if self.num_heads % self.num_kv_heads:
            raise SpecError(f"model.num_kv_heads={self.num_kv_heads}: expected a divisor of model.num_heads={self.num_heads}")

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of K and V of one token over all layers (SPLITWISE.md §1: 2 x layers x kv_heads x head_dim x bytes)."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * self.dtype_bytes

    @property
    def weight_bytes(self) -> int:
        return self.num_params * self.dtype_bytes


@dataclass(frozen=True, slots=True)
class HardwareSpec:
    """One machine: `num_gpus` GPUs that hold one tensor-parallel instance of the model.

    `nic_bytes_per_s` is the sum over the machine's NICs, each direction (full duplex); `link_latency_s` is added to each
    flow; `relative_power` is against DGX-A100 and `price_per_hour` in dollars (Splitwise, Table I and V).
    """

    name: str
    num_gpus: int
    hbm_bytes_per_gpu: int
    hbm_bytes_per_s: float
    memory_fraction: float
    activation_reserve_bytes: int
    nic_bytes_per_s: float
    link_latency_s: float
    gpu_power_w: float
    relative_power: float
    price_per_hour: float

    def __post_init__(self) -> None:
        _named("hardware", self.name)
        for key in ("num_gpus", "hbm_bytes_per_gpu", "gpu_power_w", "relative_power"):
            setting.positive(f"hardware.{key}", getattr(self, key))
        for key in ("hbm_bytes_per_s", "nic_bytes_per_s"):
            setting.bytes_per_s(f"hardware.{key}", getattr(self, key))
        for key in ("activation_reserve_bytes", "price_per_hour"):
            setting.not_negative(f"hardware.{key}", getattr(self, key))
        setting.seconds_or_zero("hardware.link_latency_s", self.link_latency_s)
        setting.between("hardware.memory_fraction", self.memory_fraction, 0, 1)

    def kv_capacity_bytes(self, model: ModelSpec) -> int:
        """HBM x memory_fraction - weights - activation reserve, over all GPUs. Raises SpecError if nothing is left."""
        usable = int(self.num_gpus * self.hbm_bytes_per_gpu * self.memory_fraction)
        capacity = usable - model.weight_bytes - self.activation_reserve_bytes
        if capacity < model.kv_bytes_per_token:
            raise SpecError(
                f"model {model.name} does not fit hardware {self.name}: weights {model.weight_bytes / 1e9:.1f} GB + "
                f"activation reserve {self.activation_reserve_bytes / 1e9:.1f} GB, usable memory {usable / 1e9:.1f} GB "
                f"(memory_fraction={self.memory_fraction:g} of num_gpus={self.num_gpus} x "
                f"hbm_bytes_per_gpu={self.hbm_bytes_per_gpu:,})"
            )
        return capacity

    def num_kv_blocks(self, model: ModelSpec, block_tokens: int) -> int:
        """Number of KV blocks of `block_tokens` tokens that fit beside the weights. Raises SpecError if none does."""
        num_blocks = self.kv_capacity_bytes(model) // (model.kv_bytes_per_token * block_tokens)
        if num_blocks < 1:
            raise SpecError(f"model {model.name} leaves no room for one KV block of {block_tokens} tokens on {self.name}")
        return num_blocks
