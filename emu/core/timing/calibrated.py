"""Timing calibrated on a machine that executes for real: `emu calibrate` measures, fits and writes it."""

from bisect import bisect_right
from collections.abc import Sequence
from inspect import Parameter, signature

import numpy as np

from emu.core import setting
from emu.core.setting import SettingError
from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing import checks
from emu.core.timing.curve import PiecewiseLinear
from emu.core.timing.family import Figures, Fits, FittedFamily
from emu.core.timing.model import TimingModel
from emu.core.timing.probe import DECODE, PREFILL
from emu.core.timing.profile import MIN_NUMPY_STEPS
from emu.core.timing.provenance import Provenance


class CalibratedTiming(TimingModel):
    """Times of one model on one machine whose engine packs all tokens of a step into one forward pass.

    A pass with *prompts* of p1, p2, ... tokens and n decodes that attend to C tokens in all takes

        pass(p1 + p2 + ... + n) + `pair_s` x sum p (p + 1) / 2 + `seq_s` x (prompts + n) + `mixed_kv_read_s_per_token` x C:

    the dense layers over all tokens and the fixed cost of a step, lines through `pass_s` at `pass_tokens`; the attention of
    each prompt, by its pairs of tokens; what each sequence costs, such as its logits; and the reading of the decodes' KV cache.
    A later chunk of a prompt adds `pair_s` for each pair of one of its tokens with one before it. A *decode* step of n
    sequences takes

        decode(n) + `kv_read_s_per_token` x C + `kv_read_growth_s` x C x C / n:

    lines through `decode_s` at `decode_num_seqs`, a curve of its own because decode steps may run otherwise (as CUDA graphs),
    and the reading of the KV cache, where on a CPU each token takes the longer the longer its sequence is. Below its first
    point a curve is flat, beyond its last the slope goes on. In between it may fall: three rows can take a matrix product
    longer than four.

    Probe steps (see `core.timing.probe`) took `probe_prefill_s` and `probe_decode_s` while this was measured.

    The stated relative errors hold from so many tokens of a pass on (`prefill_error` from `prefill_error_tokens`, `mixed_error`
    from `mixed_error_tokens`, prompts and decodes counted), and from so many sequences on (`decode_error` from
    `decode_error_num_seqs`); no region, no error. Outside the measured range they are those of the nearest region.

    Raises SettingError, with the figure's key below `place`, for points that do not ascend, what is no time, a curve that
    falls at its end, figures below 0 and errors without a region.
    """

    def __init__(
        self,
        pass_tokens: Sequence[float],
        pass_s: Sequence[float],
        pair_s: float,
        seq_s: float,
        mixed_kv_read_s_per_token: float,
        decode_num_seqs: Sequence[float],
        decode_s: Sequence[float],
        kv_read_s_per_token: float,
        kv_read_growth_s: float,
        max_seq_context_tokens: float,
        probe_prefill_s: float | None = None,
        probe_decode_s: float | None = None,
        prefill_error_tokens: Sequence[float] = (),
        prefill_error: Sequence[float] = (),
        decode_error_num_seqs: Sequence[float] = (),
        decode_error: Sequence[float] = (),
        mixed_error_tokens: Sequence[float] = (),
        mixed_error: Sequence[float] = (),
        place: str = "timing",
    ) -> None:
        checks.curve(place, "pass_tokens", pass_tokens, "pass_s", pass_s)
        checks.curve(place, "decode_num_seqs", decode_num_seqs, "decode_s", decode_s, checks.MAX_SEQS)
        for name, times_s in (("pass_s", pass_s), ("decode_s", decode_s)):
            checks.does_not_fall(f"{place}.{name}", times_s, first=len(times_s) - 1)
        for name, probe_s in (("probe_prefill_s", probe_prefill_s), ("probe_decode_s", probe_decode_s)):
            if probe_s is not None:
                checks.seconds(f"{place}.{name}", probe_s)
        self._pass, self._decode = PiecewiseLinear(pass_tokens, pass_s), PiecewiseLinear(decode_num_seqs, decode_s)
        self._min_pass_tokens, self._max_pass_tokens = pass_tokens[0], pass_tokens[-1]
        self._min_num_seqs, self._max_num_seqs = decode_num_seqs[0], decode_num_seqs[-1]
        self._pair_s = checks.cost_s(f"{place}.pair_s", pair_s)
        self._seq_s = checks.cost_s(f"{place}.seq_s", seq_s)
        self._kv_read_s = checks.cost_s(f"{place}.kv_read_s_per_token", kv_read_s_per_token)
        self._kv_read_growth_s = checks.cost_s(f"{place}.kv_read_growth_s", kv_read_growth_s)
        self._mixed_kv_read_s = checks.cost_s(f"{place}.mixed_kv_read_s_per_token", mixed_kv_read_s_per_token)
        self._max_seq_context_tokens = setting.not_negative(f"{place}.max_seq_context_tokens", max_seq_context_tokens)
        self._probe_s = {PREFILL: probe_prefill_s, DECODE: probe_decode_s}
        self._prefill_error = _regions(place, "prefill_error", "tokens", prefill_error_tokens, prefill_error)
        self._decode_error = _regions(place, "decode_error", "num_seqs", decode_error_num_seqs, decode_error)
        self._mixed_error = _regions(place, "mixed_error", "tokens", mixed_error_tokens, mixed_error)

    def _base_s(self, num_seqs: int) -> float:
        return self._decode(max(num_seqs, self._min_num_seqs))

    def prefill_s(self, prompt_tokens: Sequence[int]) -> float:
        return self._prompts_s(prompt_tokens, 0)

    def decode_s(self, num_seqs: int, context_tokens: int) -> float:
        growth_s = self._kv_read_growth_s / num_seqs
        return self._base_s(num_seqs) + (self._kv_read_s + growth_s * context_tokens) * context_tokens

    def mixed_s(self, prompt_tokens: Sequence[int], num_seqs: int, context_tokens: int) -> float:
        if not prompt_tokens:
            return self.decode_s(num_seqs, context_tokens)
        return self._prompts_s(prompt_tokens, num_seqs) + self._mixed_kv_read_s * context_tokens

    def _prompts_s(self, prompt_tokens: Sequence[int], num_seqs: int) -> float:
        num_tokens, num_pairs = sum(prompt_tokens), 0.0
        for n in prompt_tokens:
            num_pairs += n * (n + 1) / 2
        pass_s = self._pass(max(num_tokens + num_seqs, self._min_pass_tokens))
        return pass_s + self._pair_s * num_pairs + self._seq_s * (len(prompt_tokens) + num_seqs)

    def chunk_attention_s(self, num_tokens: int, num_before: int) -> float:
        return self._pair_s * num_tokens * num_before

    def decode_boundaries(self, start_s: float, num_seqs: int, context_tokens: int, num_steps: int) -> list[float]:
        base_s, kv_read_s, growth_s = self._base_s(num_seqs), self._kv_read_s, self._kv_read_growth_s / num_seqs
        contexts = (context_tokens, context_tokens + num_steps * num_seqs, num_seqs)
        if num_steps < MIN_NUMPY_STEPS:
            return [start_s := start_s + (base_s + (kv_read_s + growth_s * n) * n) for n in range(*contexts)]
        context = np.arange(*contexts)
        durations_s = base_s + (kv_read_s + growth_s * context) * context
        durations_s[0] += start_s
        boundaries_s: list[float] = np.add.accumulate(durations_s).tolist()
        return boundaries_s

    def extrapolates(self, prompt_tokens: Sequence[int], num_seqs: int, context_tokens: int) -> bool:
        """True outside the measured tokens of a pass, number of decodes or mean context of a decode."""
        if num_seqs > self._max_num_seqs or context_tokens > self._max_seq_context_tokens * num_seqs:
            return True
        if not prompt_tokens:
            return num_seqs < self._min_num_seqs
        return not self._min_pass_tokens <= sum(prompt_tokens) + num_seqs <= self._max_pass_tokens

    def relative_error(self, prompt_tokens: Sequence[int], num_seqs: int, context_tokens: int) -> float | None:
        if not prompt_tokens:
            return _error_at(self._decode_error, num_seqs)
        return _error_at(self._mixed_error if num_seqs else self._prefill_error, sum(prompt_tokens) + num_seqs)

    def probe_s(self, phase: str) -> float | None:
        return self._probe_s[phase]


# The figures of `CalibratedTiming` that are costs, by the phase whose speed they go with.
COSTS = {
    PREFILL: ("pass_s", "pair_s", "seq_s", "mixed_kv_read_s_per_token", "probe_prefill_s"),
    DECODE: ("decode_s", "kv_read_s_per_token", "kv_read_growth_s", "probe_decode_s"),
}
Regions = tuple[tuple[float, ...], tuple[float, ...]]  # where the second and later ones begin; the error of each, or none


def _regions(place: str, name: str, size: str, begins: Sequence[float], errors: Sequence[float]) -> Regions:
    checks.sizes(f"{place}.{name}_{size}", begins, min_points=0)
    checks.as_many(f"{place}.{name}", errors, f"{name}_{size}", len(begins))
    return tuple(begins[1:]), tuple(setting.not_negative(f"{place}.{name}[{i}]", error) for i, error in enumerate(errors))


def _error_at(regions: Regions, size: float) -> float | None:
    begins, errors = regions
    return errors[bisect_right(begins, size)] if errors else None


def _figure_names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The figures that a calibration must have, and those that it may have."""
    parameters = {name: of.default for name, of in signature(CalibratedTiming).parameters.items() if name != "place"}
    required = tuple(name for name, default in parameters.items() if default is Parameter.empty)
    return required, tuple(name for name in parameters if name not in required)


class CalibratedFamily(FittedFamily):
    """Calibrations per model and hardware: the keywords of `CalibratedTiming`.

    `tensor_parallel` is the number of devices that ran one instance of the model. `prefill_speed` and `decode_speed` are the
    machines' speed against that in the calibration: at 0.9 all passes with prompts, or all decode steps, take 1 / 0.9 times as
    long. Raises SettingError for one that is not positive.
    """

    FIGURES, OPTIONAL = _figure_names()

    def __init__(
        self,
        tensor_parallel: int,
        fits: Fits,
        prefill_speed: float = 1.0,
        decode_speed: float = 1.0,
        name: str = "",
        source: str | None = None,
        date: str | None = None,
        error: str | None = None,
    ) -> None:
        super().__init__(tensor_parallel, fits, Provenance(name, source, date, error))
        self._speeds = {PREFILL: prefill_speed, DECODE: decode_speed}
        for phase, speed in self._speeds.items():
            setting.positive(f"timing.{phase}_speed", speed)

    def check(self, place: str, fit: Figures) -> None:
        CalibratedTiming(**fit, place=place)

    def build(self, place: str, fit: Figures, model: ModelSpec, hardware: HardwareSpec) -> TimingModel:
        factors = {name: 1.0 / speed for phase, speed in self._speeds.items() for name in COSTS[phase] if name in fit}
        figures = {**fit, **{name: _times(factor, fit[name]) for name, factor in factors.items()}}
        try:
            return CalibratedTiming(**figures, place=place)
        except SettingError as error:  # as it stands in the file it is right
            speeds = " ".join(f"timing.{phase}_speed={speed:g}" for phase, speed in self._speeds.items())
            raise SettingError(f"{speeds}: {error}") from error


def _times(factor: float, figure: float | Sequence[float]) -> float | list[float]:
    return [factor * value for value in figure] if isinstance(figure, Sequence) else factor * figure
