"""Timing by two constants, for tests and studies that need hand-computed times."""

from collections.abc import Sequence

from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing import checks
from emu.core.timing.model import TimingModel
from emu.core.timing.provenance import Provenance


class ConstantTiming(TimingModel):
    """Prefill takes `prefill_s_per_token` for each prompt token, a decode step `decode_step_s`, a mixed pass the sum.

    The same on every machine, whatever the context. Raises SettingError for what is no time of a pass.
    """

    provenance = Provenance(name="constant")

    def __init__(self, prefill_s_per_token: float, decode_step_s: float) -> None:
        self.prefill_s_per_token = checks.seconds("timing.prefill_s_per_token", prefill_s_per_token)
        self.decode_step_s = checks.seconds("timing.decode_step_s", decode_step_s)

    def for_machine(self, model: ModelSpec, hardware: HardwareSpec) -> TimingModel:
        return self

    def prefill_s(self, prompt_tokens: Sequence[int]) -> float:
        return sum(prompt_tokens) * self.prefill_s_per_token

    def decode_s(self, num_seqs: int, context_tokens: int) -> float:
        return self.decode_step_s

    def mixed_s(self, prompt_tokens: Sequence[int], num_seqs: int, context_tokens: int) -> float:
        return self.prefill_s(prompt_tokens) + (self.decode_step_s if num_seqs else 0.0)

    def extrapolates(self, prompt_tokens: Sequence[int], num_seqs: int, context_tokens: int) -> bool:
        return False
