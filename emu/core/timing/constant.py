"""Timing by two constants, for tests and studies that need hand-computed times."""

from collections.abc import Sequence

from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing.model import TimingError, TimingModel


class ConstantTiming(TimingModel):
    """Prefill takes `prefill_s_per_token` for each prompt token, a decode step `decode_step_s`, a mixed pass the sum.

    The same on every machine, whatever the context. Raises TimingError for a duration that is not positive.
    """

    def __init__(self, prefill_s_per_token: float, decode_step_s: float) -> None:
        for name, value in (("prefill_s_per_token", prefill_s_per_token), ("decode_step_s", decode_step_s)):
            if not value > 0:
                raise TimingError(f"timing.{name}={value} must be greater than 0")
        self.prefill_s_per_token = float(prefill_s_per_token)
        self.decode_step_s = float(decode_step_s)

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
