"""How well a calibration predicts steps that it was not fitted to."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from emu.core.timing.calibrated import CalibratedTiming
from emu.core.timing.probe import trimmed_mean
from emu.execution.calibration.fit import Figures, fit
from emu.execution.calibration.measurements import Round
from emu.execution.calibration.step_shape import StepShape

PERCENTILE = 95.0
MIN_SHAPES = 4  # of a region that has an error of its own
# Where the errors' regions may begin: tokens of a pass with prompts, sequences of a decode step.
REGIONS = {"prefill": (1, 16, 256, 1024), "decode": (1, 5, 17, 65), "mixed": (1, 256, 1024)}


class RegionError(NamedTuple):
    """The error in one region: passes of `phase` from `begin` tokens, or sequences, on.

    `error` is the 95th percentile, over the held-out configurations and rounds, of |measured / predicted - 1|; the measure of a
    round is the mean of a few steps. `steady_error` is the same at the calibration's typical speed: the error of the fit alone,
    without how the host wavers. `bias` is the median of what is measured at that speed / predicted - 1.
    """

    phase: str
    begin: int
    num_shapes: int
    error: float
    steady_error: float
    bias: float


def held_out_errors(rounds: Mapping[StepShape, Sequence[Round]]) -> list[RegionError]:
    """The errors by region, from the rounds of each shape.

    One shape at a time is held out with all its rounds, the model fitted to the others, and asked for it. The ends of the
    range cannot be interpolated when they are held out, so they are not. Regions with few shapes are one with the next smaller.
    """
    steady_s = steady_times(rounds)
    errors: dict[StepShape, np.ndarray] = {}
    for shape, of_shape in rounds.items():
        timing = CalibratedTiming(**fit({other: time_s for other, time_s in steady_s.items() if other != shape}))
        if not shape.is_outside(timing):
            predicted_s = shape.predict_s(timing)
            errors[shape] = np.array(of_shape) / predicted_s - 1.0  # (rounds, fields of Round)
    return [region for phase in REGIONS for region in _regions(phase, errors)]


def steady_times(rounds: Mapping[StepShape, Sequence[Round]]) -> dict[StepShape, float]:
    """What a step of each shape takes at the calibration's typical speed: what is fitted."""
    return {shape: trimmed_mean([one.steady_s for one in of_shape]) for shape, of_shape in rounds.items()}


def _regions(phase: str, errors: Mapping[StepShape, np.ndarray]) -> list[RegionError]:
    """Those of one phase; none where nothing of it was held out."""
    by_size = sorted(
        (shape.num_seqs if phase == "decode" else shape.num_tokens, shape) for shape in errors if shape.phase == phase
    )
    regions: list[RegionError] = []
    groups: list[tuple[int, list[StepShape]]] = []
    for begin, end in zip(REGIONS[phase], (*REGIONS[phase][1:], float("inf")), strict=True):
        shapes = [shape for size, shape in by_size if begin <= size < end]
        if groups and min(len(shapes), len(groups[-1][1])) < MIN_SHAPES:
            groups[-1][1].extend(shapes)
        else:
            groups.append((begin, shapes))
    for begin, shapes in groups:
        if shapes:
            of_region = np.concatenate([errors[shape] for shape in shapes])
            error, steady_error = np.percentile(np.abs(of_region), PERCENTILE, axis=0).tolist()
            bias = float(np.median(of_region[:, 1]))
            regions.append(RegionError(phase, begin, len(shapes), error, steady_error, bias))
    return regions


def error_figures(regions: Sequence[RegionError]) -> Figures:
    """The stated errors as `CalibratedTiming` takes them."""
    figures: Figures = {}
    for phase, size in (("prefill", "tokens"), ("decode", "num_seqs"), ("mixed", "tokens")):
        of_phase = [region for region in regions if region.phase == phase]
        figures[f"{phase}_error_{size}"] = [region.begin for region in of_phase]
        figures[f"{phase}_error"] = [region.error for region in of_phase]
    return figures
