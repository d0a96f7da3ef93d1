"""The timing of the published Splitwise simulator, errors included: for comparisons with its results only."""

from collections.abc import Sequence
from itertools import accumulate, repeat

from emu.core import setting
from emu.core.setting import SettingError
from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing import checks
from emu.core.timing.curve import PiecewiseLinear
from emu.core.timing.family import Figures, Fits, FittedFamily
from emu.core.timing.model import TimingModel
from emu.core.timing.provenance import Provenance

PROVENANCE = Provenance(
    name="splitwise_sim",
    source="splitwise-sim at commit 8f99e7d, its lookup in data/perf_model.csv",
    flaw="its decode times are 39 to 51 % too short at batch 64",
)


class SplitwiseSimTiming(TimingModel):
    """Lookup by batch tokens = prompt tokens + number of decodes (SplitwiseSim, commit 8f99e7d; SPLITWISE.md §9).

    `batch_tokens` are the profile's values of prompt_size x batch_size, `prefill_s` and `decode_s` the medians of all
    its prefill and decode times there. Lines between these points continue beyond the first and the last one. A decode
    step is looked up by its number of sequences on this axis of prompt tokens, so it hardly depends on the batch and
    not on the context; a mixed pass takes `mixed_factor` times the prefill of its batch tokens.

    Raises SettingError, with the figure's key below `place`, for points that do not ascend, what is no time, and lines that
    go below zero before the first point or beyond the last.
    """

    def __init__(
        self,
        batch_tokens: Sequence[int],
        prefill_s: Sequence[float],
        decode_s: Sequence[float],
        mixed_factor: float,
        place: str = "timing",
    ) -> None:
        for name, times_s in (("prefill_s", prefill_s), ("decode_s", decode_s)):
            checks.curve(place, "batch_tokens", batch_tokens, name, times_s)
            checks.does_not_fall(f"{place}.{name}", times_s, first=len(times_s) - 1)
            if (at_one_s := PiecewiseLinear(batch_tokens, times_s)(1)) <= 0:
                raise SettingError(
                    f"{place}.{name}[0]={times_s[0]}: the line from the second point through it is {at_one_s:.3g} s at one "
                    "token; expected more than 0"
                )
        self._prefill = PiecewiseLinear(batch_tokens, prefill_s)
        self._decode = PiecewiseLinear(batch_tokens, decode_s)
        self._mixed_factor = mixed_factor
        self._min_batch_tokens, self._max_batch_tokens = batch_tokens[0], batch_tokens[-1]

    def prefill_s(self, prompt_tokens: Sequence[int]) -> float:
        return self._prefill(sum(prompt_tokens))

    def decode_s(self, num_seqs: int, context_tokens: int) -> float:
        return self._decode(num_seqs)

    def mixed_s(self, prompt_tokens: Sequence[int], num_seqs: int, context_tokens: int) -> float:
        if not prompt_tokens:
            return self._decode(num_seqs)
        if not num_seqs:
            return self.prefill_s(prompt_tokens)
        return self._mixed_factor * self._prefill(sum(prompt_tokens) + num_seqs)

    def decode_boundaries(self, start_s: float, num_seqs: int, context_tokens: int, num_steps: int) -> list[float]:
        return list(accumulate(repeat(self._decode(num_seqs), num_steps), initial=start_s))[1:]

    def extrapolates(self, prompt_tokens: Sequence[int], num_seqs: int, context_tokens: int) -> bool:
        """Only prompts can lie outside the points: the published lookup reads every decode step below the first one."""
        if not prompt_tokens:
            return False
        return not self._min_batch_tokens <= sum(prompt_tokens) + num_seqs <= self._max_batch_tokens


class SplitwiseSimFamily(FittedFamily):
    """Points per model and hardware: `batch_tokens`, `prefill_s` and `decode_s`."""

    FIGURES = ("batch_tokens", "prefill_s", "decode_s")

    def __init__(self, tensor_parallel: int, mixed_factor: float, fits: Fits) -> None:
        self.mixed_factor = setting.between("timing.mixed_factor", mixed_factor, 1e-3, 1e3)
        super().__init__(tensor_parallel, fits, PROVENANCE)

    def check(self, place: str, fit: Figures) -> None:
        self._timing(place, fit)

    def build(self, place: str, fit: Figures, model: ModelSpec, hardware: HardwareSpec) -> TimingModel:
        return self._timing(place, fit)

    def _timing(self, place: str, fit: Figures) -> TimingModel:
        return SplitwiseSimTiming(**fit, mixed_factor=self.mixed_factor, place=place)
