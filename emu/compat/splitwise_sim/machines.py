"""The machines of the published simulator (SPLITWISE.md §9), as configured."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from emu.compat.splitwise_sim.batcher import BatchLimits
from emu.compat.splitwise_sim.load import SplitwiseSimLoad
from emu.compat.splitwise_sim.machine import SplitwiseSimMachine
from emu.compat.splitwise_sim.scheduler import SplitwiseSimScheduler
from emu.core import setting
from emu.core.batching.policy import BatchingPolicy
from emu.core.machine_kind import Capacity, MachineSpec
from emu.core.oracle import OutputOracle
from emu.core.pools import Role
from emu.core.specs import HardwareSpec, ModelSpec, SpecError
from emu.core.timing.model import TimingModel


class SplitwiseSimMachines:
    """All HBM but the weights is for KV caches, token by token; a decode takes what it will need to its end at its start.

    `weight_bytes` is by model. `link_bytes_per_s` replaces the NIC of any hardware, and there is no latency. A machine that
    is short of memory for a hand-over looks again every `retry_s`. The batching policy is not asked: see `Batcher` for the
    rules to which the three limits belong. `batching`, `transfer.layerwise_min_tokens` and
    `transfer.layers_per_piece` have no effect.
    """

    wants_oracle: ClassVar[bool] = True
    load_type: ClassVar[type[SplitwiseSimLoad]] = SplitwiseSimLoad
    scheduler_type: ClassVar[type[SplitwiseSimScheduler]] = SplitwiseSimScheduler

    def __init__(
        self,
        weight_bytes: Mapping[str, int],
        link_bytes_per_s: float,
        retry_s: float,
        max_num_seqs: int,
        max_batch_tokens: int,
        max_num_skips: int,
    ) -> None:
        self.weight_bytes = {
            name: setting.whole(f"machine.weight_bytes.{name}", num_bytes, 0, 2**63) for name, num_bytes in weight_bytes.items()
        }
        self.link_bytes_per_s = setting.bytes_per_s("machine.link_bytes_per_s", link_bytes_per_s)
        self.retry_s = setting.period_s("machine.retry_s", retry_s)
        self.limits = BatchLimits(
            setting.whole("machine.max_num_seqs", max_num_seqs, 1),
            setting.whole("machine.max_batch_tokens", max_batch_tokens, 1),
            setting.whole("machine.max_num_skips", max_num_skips, 1),
        )
        self.oracle: OutputOracle | None = None

    def consult(self, oracle: OutputOracle) -> "SplitwiseSimMachines":
        """These machines with the output lengths of a workload."""
        informed = copy.copy(self)
        informed.oracle = oracle
        return informed

    def spec(
        self, index: int, name: str, role: Role, hardware: HardwareSpec, model: ModelSpec, timing: TimingModel
    ) -> MachineSpec:
        """Its KV blocks are single tokens."""
        num_tokens = self._num_tokens(hardware, model)
        hardware = replace(hardware, nic_bytes_per_s=self.link_bytes_per_s, link_latency_s=0.0)
        return MachineSpec(index, name, role, hardware, num_tokens, timing)

    def make_machine(
        self, spec: MachineSpec, model: ModelSpec, batching: BatchingPolicy, layerwise_min_tokens: float, num_pieces: int
    ) -> SplitwiseSimMachine:
        assert self.oracle is not None  # a cluster is made of machines that were told: see `consult`
        return SplitwiseSimMachine(
            index=spec.index,
            num_bytes=self._kv_bytes(spec.hardware, model),
            limits=self.limits,
            retry_s=self.retry_s,
            kv_bytes_per_token=model.kv_bytes_per_token,
            oracle=self.oracle,
            reports_queue=spec.role is not Role.MIXED,
        )

    def capacity(self, hardware: HardwareSpec, model: ModelSpec) -> Capacity:
        num_tokens = self._num_tokens(hardware, model)
        # A prompt takes a token more than it has, and a decode all that it will write.
        return Capacity(num_tokens - 1, num_tokens - 1, num_tokens)

    def make_load(self, spec: MachineSpec, model: ModelSpec) -> SplitwiseSimLoad:
        num_bytes = self._kv_bytes(spec.hardware, model)
        assert self.oracle is not None
        return SplitwiseSimLoad(spec.index, spec.role, spec.num_kv_blocks, num_bytes, model.kv_bytes_per_token, self.oracle)

    def _num_tokens(self, hardware: HardwareSpec, model: ModelSpec) -> int:
        """How many tokens' KV cache fits beside the weights. Raises SpecError if none does."""
        num_tokens = self._kv_bytes(hardware, model) // model.kv_bytes_per_token
        if num_tokens < 1:
            weight_bytes = self.weight_bytes[model.name]
            raise SpecError(
                f"model {model.name} does not fit hardware {hardware.name}: weights {weight_bytes / 1e9:.1f} GB, "
                f"memory {hardware.num_gpus * hardware.hbm_bytes_per_gpu / 1e9:.1f} GB "
                f"(num_gpus={hardware.num_gpus} x hbm_bytes_per_gpu={hardware.hbm_bytes_per_gpu:,})"
            )
        return num_tokens

    def _kv_bytes(self, hardware: HardwareSpec, model: ModelSpec) -> int:
        """What the weights leave. Raises SpecError for a model without."""
        if model.name not in self.weight_bytes:
            known = ", ".join(self.weight_bytes) or "none"
            raise SpecError(f"machine.weight_bytes has no model {model.name}; there is: {known}")
        return hardware.num_gpus * hardware.hbm_bytes_per_gpu - self.weight_bytes[model.name]
