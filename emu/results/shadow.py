"""Real machines and their timing models: how long each step took, over how long the model says that it takes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from emu.core.batch import Prefill
from emu.core.machine_kind import MachineSpec
from emu.core.timing.chunk import prefill_pass_s
from emu.core.timing.model import TimingModel
from emu.results.columns import Batches, Columns, Steps
from emu.results.run_record import RunRecord

KINDS = ("prefill", "decode", "mixed")  # of steps: prompts alone, decodes alone, both
WINDOW_STEPS = 50  # a machine that has become slower is noticed after so many steps
MIN_WINDOW_STEPS = 10  # fewer tell nothing: a pause or two of the host would be half of them
LEAST_ERROR = 1e-6  # by which a drift is measured where the stated error is 0
WINDOWS_AT_ONCE = 10_000  # whose medians are computed together, in 4 MB


class DriftWindow(NamedTuple):
    """`num_steps` consecutive steps from `start_s` on took, at their median, 1 + `drift` times as long as predicted.

    `stated_error` is the mean relative error that the timing model states for these steps, None where it states none.
    """

    drift: float
    num_steps: int
    start_s: float
    stated_error: float | None


@dataclass(frozen=True, eq=False)
class Shadow:
    """The steps of one machine that executed for real, in order of time: an entry a step in each array.

    `ratio` is the measured duration of a step over the predicted one (1.5: half as long again as predicted), `stated_error` the
    relative error that the timing model states for it, NaN where it states none, and `kind` the index in KINDS.
    """

    machine: str
    start_s: np.ndarray
    ratio: np.ndarray
    stated_error: np.ndarray
    kind: np.ndarray

    def median(self, kind: int | None = None) -> float | None:
        """The median ratio of the steps of this kind, or of all; None where there are none."""
        ratio = self.ratio if kind is None else self.ratio[self.kind == kind]
        return float(np.median(ratio)) if len(ratio) else None

    @property
    def _with_stated_error(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ratio, start and stated error of the steps that have one."""
        chosen = ~np.isnan(self.stated_error)
        return self.ratio[chosen], self.start_s[chosen], self.stated_error[chosen]

    @property
    def whole(self) -> DriftWindow | None:
        """All steps with a stated error as one window; None where there are fewer than MIN_WINDOW_STEPS."""
        ratio, start_s, errors = self._with_stated_error
        if len(ratio) < MIN_WINDOW_STEPS:
            return None
        return DriftWindow(float(np.median(ratio)) - 1.0, len(ratio), float(start_s[0]), float(errors.mean()))

    @cached_property
    def worst_window(self) -> DriftWindow | None:
        """Of all windows of WINDOW_STEPS consecutive steps the one whose median ratio is farthest from 1, measured by the error
        stated for it. The median of a window does not follow a few steps that took long, such as in a pause of the host.

        Steps without a stated error are left out, unless no step has one. With fewer steps than a window the window is all of
        them; None with fewer than MIN_WINDOW_STEPS.
        """
        ratio, start_s, stated_errors = self._with_stated_error
        is_stated = len(ratio) > 0
        if not is_stated:
            ratio, start_s = self.ratio, self.start_s
        num_steps = min(WINDOW_STEPS, len(ratio))
        if num_steps < MIN_WINDOW_STEPS:
            return None
        drift = _by_window(np.median, ratio, num_steps) - 1.0
        errors = _by_window(np.mean, stated_errors, num_steps) if is_stated else np.ones(len(drift))
        beyond = np.abs(drift) / np.maximum(errors, LEAST_ERROR)
        worst = int(np.argmax(np.round(beyond, 9)))  # of windows equal but for rounding the first
        return DriftWindow(float(drift[worst]), num_steps, float(start_s[worst]), float(errors[worst]) if is_stated else None)


def shadows(record: RunRecord, columns: Columns) -> list[Shadow]:
    """One for each machine that executed for real, in the order of `record.real`."""
    return [_shadow(record.machines[index], columns.steps) for index in record.real]


def shadow_figures(machines: Sequence[Shadow]) -> dict[str, dict[str, Any]]:
    """The summary's `shadow`, ready for JSON: by real machine its number of steps, the median ratio of all and of each kind,
    and the window that drifts most; None where there is nothing to tell."""
    return {shadow.machine: _figures(shadow) for shadow in machines}


def _figures(shadow: Shadow) -> dict[str, Any]:
    ratio = {"all": shadow.median()} | {name: shadow.median(kind) for kind, name in enumerate(KINDS)}
    worst = shadow.worst_window
    window = dict.fromkeys(DriftWindow._fields) if worst is None else worst._asdict()
    return {"steps": len(shadow.ratio), "ratio": ratio, "worst_window": window}


def _shadow(machine: MachineSpec, steps: Steps) -> Shadow:
    batches = steps.batches
    first, end = np.searchsorted(batches.machine, (machine.index, machine.index + 1))
    num_steps, num_decodes, num_prefills = (
        column[first:end] for column in (batches.num_steps, batches.num_decodes, batches.num_prefills)
    )
    first_step = batches.first_step[first] if end > first else 0
    numbers = np.arange(first_step, first_step + num_steps.sum())
    start_s = steps.starts_of(numbers)
    predicted_s, stated_errors = [np.empty(0)], []
    for durations_s, stated_error in _passes(machine.timing, batches, first, end):
        predicted_s.append(durations_s)
        stated_errors.append(np.nan if stated_error is None else stated_error)
    return Shadow(
        machine=machine.name,
        start_s=start_s,
        ratio=(steps.end_s[numbers] - start_s) / np.concatenate(predicted_s),
        stated_error=np.repeat(np.array(stated_errors, float), num_steps),
        kind=np.repeat(np.select([num_prefills == 0, num_decodes == 0], [1, 0], 2), num_steps),
    )


def _passes(timing: TimingModel, batches: Batches, first: int, end: int) -> Iterator[tuple[np.ndarray, float | None]]:
    """For each of the batches `first` to `end` (excluded) the predicted seconds of its steps, and their stated error.

    A batch with prompts is one step. In a run of decodes the context grows from step to step: the error is that in its middle.
    """
    columns = (batches.num_steps, batches.num_decodes, batches.context_tokens, batches.num_prefills)
    of_prompts = slice(batches.num_prefills[:first].sum(), batches.num_prefills[:end].sum())
    chunks = zip(batches.prompt_tokens[of_prompts].tolist(), batches.prompt_tokens_before[of_prompts].tolist(), strict=True)
    prefills = (Prefill(0, 0, num_tokens, 0, num_before) for num_tokens, num_before in chunks)
    for num_steps, num_seqs, context, num_prefills in zip(*(column[first:end].tolist() for column in columns), strict=True):
        if num_prefills:
            chunk = tuple(islice(prefills, num_prefills))
            pass_s = np.array([prefill_pass_s(timing, chunk, num_seqs, context)])
            yield pass_s, timing.relative_error([prefill.num_tokens for prefill in chunk], num_seqs, context)
        else:
            ends_s = timing.decode_boundaries(0.0, num_seqs, context, num_steps)
            yield np.diff(ends_s, prepend=0.0), timing.relative_error((), num_seqs, context + num_steps // 2 * num_seqs)


def _by_window(figure: Callable[..., np.ndarray], values: np.ndarray, num_steps: int) -> np.ndarray:
    """The `figure` (np.median, np.mean) of each window of `num_steps` consecutive values."""
    windows = sliding_window_view(values, num_steps)
    parts = (windows[start : start + WINDOWS_AT_ONCE] for start in range(0, len(windows), WINDOWS_AT_ONCE))
    return np.concatenate([figure(part, axis=1) for part in parts])
