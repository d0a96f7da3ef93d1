"""Timing calibrated on the measured Splitwise profile: prefill by tokens, decode by batch size and context."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from emu.core import setting
from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing.curve import PiecewiseLinear
from emu.core.timing.family import Fit, Fits, FittedFamily
from emu.core.timing.model import TimingError, TimingModel

# Below this many steps plain Python beats numpy's fixed cost of about 2.5 us; both yield the same floats.
MIN_NUMPY_STEPS = 32


class ProfileTiming(TimingModel):
    """Times of one model on one kind of machine.

    A *prefill* of one prompt of n tokens takes curve(n): lines through `prefill_s` at `prefill_tokens`. Below the first
    point it is flat: launches and the reading of the weights set the time, not the tokens. Beyond the last point N the
    last slope goes on and grows with attention's share of the work, slope x (n - N) x (1 + g (n - N) / 2) with
    g = a / (1 + a N), where a = `attention_per_token` is the work of attending to one token over a token's work in the
    linear layers. Prompts n1, n2, ... of n tokens together do not attend to each other: they take curve(n) -
    `pair_saving_s` x (n^2 - n1^2 - n2^2 - ...), though never less than the longest of them alone; beyond N the saving
    stops growing. `pair_saving_s` is negative where the kernels for several prompts cost more than that.

    A *decode* step of n sequences with C tokens of context in all takes base(n) + `kv_read_s_per_token` x C: lines
    through `decode_s` at `decode_num_seqs`, the last slope going on, and the reading of the KV cache.

    A *mixed* pass runs its linear layers over prompt and decode tokens alike and reads the decodes' KV cache:
    max(curve(prompt tokens + n) less the saving, base(n)) + `kv_read_s_per_token` x C, so it is never shorter than the
    prefill or the decode step alone. The profile has no such pass; this is the sum of its parts.

    Raises TimingError for curves that do not ascend, or fall, a decode curve that does not start at one sequence, or a
    saving that would leave nothing of a pass.
    """

    def __init__(
        self,
        prefill_tokens: Sequence[int],
        prefill_s: Sequence[float],
        pair_saving_s: float,
        attention_per_token: float,
        decode_num_seqs: Sequence[int],
        decode_s: Sequence[float],
        kv_read_s_per_token: float,
        max_seq_context_tokens: int,
    ) -> None:
        for name, curve in (("prefill_s", prefill_s), ("decode_s", decode_s)):
            if not curve or curve[0] <= 0 or any(b < a for a, b in pairwise(curve)):
                raise TimingError(f"timing {name} must be positive and never fall: {list(curve)}")
        if not decode_num_seqs or decode_num_seqs[0] != 1:
            raise TimingError(f"timing decode_num_seqs must start at 1: {list(decode_num_seqs)}")
        self._prefill = PiecewiseLinear(prefill_tokens, prefill_s)
        if any(pair_saving_s * n * n >= time_s for n, time_s in zip(prefill_tokens, prefill_s, strict=True)):
            raise TimingError(f"timing pair_saving_s={pair_saving_s} leaves nothing of a pass: {list(prefill_s)}")
        self._min_prefill_tokens, self._max_prefill_tokens = prefill_tokens[0], prefill_tokens[-1]
        self._pair_saving_s = pair_saving_s
        growth = attention_per_token / (1.0 + attention_per_token * prefill_tokens[-1])
        self._prefill_quadratic_s = self._prefill.last_slope * growth / 2.0
        self._decode = PiecewiseLinear(decode_num_seqs, decode_s)
        self._max_num_seqs = decode_num_seqs[-1]
        self._decode_base_s = (0.0, *(self._decode(n) for n in range(1, self._max_num_seqs + 1)))
        self._kv_read_s = kv_read_s_per_token
        self._max_seq_context_tokens = max_seq_context_tokens

    def _pass_s(self, num_tokens: int) -> float:
        if num_tokens <= self._min_prefill_tokens:
            num_tokens = self._min_prefill_tokens
        duration_s = self._prefill(num_tokens)
        if num_tokens > self._max_prefill_tokens:
            duration_s += self._prefill_quadratic_s * (num_tokens - self._max_prefill_tokens) ** 2
        return duration_s

    def _base_s(self, num_seqs: int) -> float:
        return self._decode_base_s[num_seqs] if num_seqs <= self._max_num_seqs else self._decode(num_seqs)

    def _prompts_s(self, prompt_tokens: Sequence[int], num_seqs: int) -> float:
        """The linear layers over these prompts and `num_seqs` tokens more, and the prompts' attention."""
        if len(prompt_tokens) == 1:
            return self._pass_s(prompt_tokens[0] + num_seqs)
        num_tokens = sum(prompt_tokens)
        num_pairs = num_tokens * num_tokens
        for n in prompt_tokens:
            num_pairs -= n * n
        if num_tokens > self._max_prefill_tokens:
            num_pairs *= (self._max_prefill_tokens / num_tokens) ** 2
        duration_s = self._pass_s(num_tokens + num_seqs) - self._pair_saving_s * num_pairs
        longest_s = self._pass_s(max(prompt_tokens))
        return duration_s if duration_s > longest_s else longest_s

    def prefill_s(self, prompt_tokens: Sequence[int]) -> float:
        return self._prompts_s(prompt_tokens, 0)

    def decode_s(self, num_seqs: int, context_tokens: int) -> float:
        return self._base_s(num_seqs) + self._kv_read_s * context_tokens

    def mixed_s(self, prompt_tokens: Sequence[int], num_seqs: int, context_tokens: int) -> float:
        if not prompt_tokens:
            return self.decode_s(num_seqs, context_tokens)
        if not num_seqs:
            return self.prefill_s(prompt_tokens)
        return max(self._prompts_s(prompt_tokens, num_seqs), self._base_s(num_seqs)) + self._kv_read_s * context_tokens

    def decode_boundaries(self, start_s: float, num_seqs: int, context_tokens: int, num_steps: int) -> list[float]:
        base_s, kv_read_s = self._base_s(num_seqs), self._kv_read_s
        contexts = (context_tokens, context_tokens + num_steps * num_seqs, num_seqs)
        if num_steps < MIN_NUMPY_STEPS:
            return [start_s := start_s + (base_s + kv_read_s * context) for context in range(*contexts)]
        durations_s = base_s + kv_read_s * np.arange(*contexts)
        durations_s[0] += start_s
        return np.add.accumulate(durations_s).tolist()

    def extrapolates(self, prompt_tokens: Sequence[int], num_seqs: int, context_tokens: int) -> bool:
        """True beyond the profiled tokens of a pass, number of sequences or mean context of a sequence."""
        if num_seqs > self._max_num_seqs or context_tokens > self._max_seq_context_tokens * num_seqs:
            return True
        if not prompt_tokens:
            return False
        return not self._min_prefill_tokens <= sum(prompt_tokens) + num_seqs <= self._max_prefill_tokens


class ProfileFamily(FittedFamily):
    """Fits per model and hardware: the two curves, `pair_saving_s` and `kv_bandwidth_share`, of HBM bandwidth when KV
    cache is read. `max_seq_context_tokens` bounds the profiled range: `ProfileTiming.extrapolates`.
    """

    def __init__(self, tensor_parallel: int, max_seq_context_tokens: int, fits: Fits) -> None:
        super().__init__(tensor_parallel, fits)
        self.max_seq_context_tokens = max_seq_context_tokens

    def build(self, fit: Fit, model: ModelSpec, hardware: HardwareSpec) -> TimingModel:
        return self._timing(model, hardware, **fit)

    def _timing(self, model: ModelSpec, hardware: HardwareSpec, kv_bandwidth_share: float, **curves) -> TimingModel:
        setting.positive(f"timing.fits.{model.name}.{hardware.name}.kv_bandwidth_share", kv_bandwidth_share)
        kv_bytes_per_s = kv_bandwidth_share * hardware.num_gpus * hardware.hbm_bytes_per_s
        # FLOPs of a token: 2 x num_params in the linear layers, 4 x layers x heads x head_dim per token attended to.
        attention_per_token = 2.0 * model.num_layers * model.num_heads * model.head_dim / model.num_params
        return ProfileTiming(
            **curves,
            attention_per_token=attention_per_token,
            kv_read_s_per_token=model.kv_bytes_per_token / kv_bytes_per_s,
            max_seq_context_tokens=self.max_seq_context_tokens,
        )
