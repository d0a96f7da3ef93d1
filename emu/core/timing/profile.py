"""Timing calibrated on the measured Splitwise profile: prefill by tokens, decode by batch size and context."""

from collections.abc import Sequence

import numpy as np

from emu.core import setting
from emu.core.setting import SettingError
from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing import checks
from emu.core.timing.curve import PiecewiseLinear
from emu.core.timing.family import Figures, Fits, FittedFamily
from emu.core.timing.model import TimingModel
from emu.core.timing.provenance import Provenance

# Below this many steps plain Python beats numpy's fixed cost of about 2.5 us; both yield the same floats.
MIN_NUMPY_STEPS = 32
MIN_BANDWIDTH_SHARE = 1e-6


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

    Raises SettingError, with the figure's key below `place`, for sizes that do not ascend, times that fall or are no times,
    a decode curve that does not start at one sequence, or a saving that would leave nothing of a pass.
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
        place: str = "timing",
    ) -> None:
        checks.curve(place, "prefill_tokens", prefill_tokens, "prefill_s", prefill_s)
        checks.does_not_fall(f"{place}.prefill_s", prefill_s)
        checks.curve(place, "decode_num_seqs", decode_num_seqs, "decode_s", decode_s, checks.MAX_SEQS)
        checks.does_not_fall(f"{place}.decode_s", decode_s)
        if decode_num_seqs[0] != 1:
            raise SettingError(f"{place}.decode_num_seqs[0]={decode_num_seqs[0]}: expected 1")
        setting.between(f"{place}.pair_saving_s", pair_saving_s, -checks.MAX_S, checks.MAX_S)
        for n, time_s in zip(prefill_tokens, prefill_s, strict=True):
            if pair_saving_s * n * n >= time_s:
                raise SettingError(
                    f"{place}.pair_saving_s={pair_saving_s}: leaves nothing of a pass of {n} tokens, {time_s} s; "
                    f"expected less than {time_s / (n * n):.3g}"
                )
        self._prefill = PiecewiseLinear(prefill_tokens, prefill_s)
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
        num_pairs: float = num_tokens * num_tokens
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
        boundaries_s: list[float] = np.add.accumulate(durations_s).tolist()
        return boundaries_s

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

    FIGURES = ("prefill_tokens", "prefill_s", "pair_saving_s", "decode_num_seqs", "decode_s", "kv_bandwidth_share")

    def __init__(
        self,
        tensor_parallel: int,
        max_seq_context_tokens: int,
        fits: Fits,
        name: str = "",
        source: str | None = None,
        date: str | None = None,
        error: str | None = None,
    ) -> None:
        self.max_seq_context_tokens = setting.whole("timing.max_seq_context_tokens", max_seq_context_tokens, 1)
        super().__init__(tensor_parallel, fits, Provenance(name, source, date, error))

    def check(self, place: str, fit: Figures) -> None:
        setting.between(f"{place}.kv_bandwidth_share", fit["kv_bandwidth_share"], MIN_BANDWIDTH_SHARE, 1)
        self._timing(place, fit, attention_per_token=0.0, kv_read_s_per_token=0.0)

    def build(self, place: str, fit: Figures, model: ModelSpec, hardware: HardwareSpec) -> TimingModel:
        kv_bytes_per_s = fit["kv_bandwidth_share"] * hardware.num_gpus * hardware.hbm_bytes_per_s
        # FLOPs of a token: 2 x num_params in the linear layers, 4 x layers x heads x head_dim per token attended to.
        attention_per_token = 2.0 * model.num_layers * model.num_heads * model.head_dim / model.num_params
        return self._timing(place, fit, attention_per_token, model.kv_bytes_per_token / kv_bytes_per_s)

    def _timing(self, place: str, fit: Figures, attention_per_token: float, kv_read_s_per_token: float) -> TimingModel:
        figures = {name: figure for name, figure in fit.items() if name != "kv_bandwidth_share"}
        return ProfileTiming(
            **figures,
            attention_per_token=attention_per_token,
            kv_read_s_per_token=kv_read_s_per_token,
            max_seq_context_tokens=self.max_seq_context_tokens,
            place=place,
        )
