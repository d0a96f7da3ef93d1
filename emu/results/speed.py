"""How fast the real machines of a run were, by the probe steps that they timed while idle."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from emu.core.timing.probe import PHASES, trimmed_mean
from emu.results.columns import Columns
from emu.results.run_record import RunRecord

Figures = dict[str, dict[str, Any]]


def probe_ratios(record: RunRecord, columns: Columns) -> np.ndarray:
    """How long each probe step took over how long it took in the calibration; NaN where the timing model does not tell."""
    probes = columns.probe_steps
    known_s: Mapping[tuple[int, str], float | None] = {
        (machine, phase): record.machines[machine].timing.probe_s(phase) for machine in record.real for phase in PHASES
    }
    calibrated_s = [known_s[machine, phase] for machine, phase in zip(probes.machine, probes.phase, strict=True)]
    return probes.step_s / np.array(calibrated_s, dtype=float)


def speed_figures(record: RunRecord, columns: Columns) -> Figures:
    """The summary's `speed`, ready for JSON: of each phase the number of probe `steps` of all real machines together, and the
    `speed` that they had against the calibration (0.9: a step takes 1 / 0.9 times as long), None where that is not known."""
    ratios, figures = probe_ratios(record, columns), {}
    for phase in PHASES:
        of_phase = ratios[columns.probe_steps.phase == phase]
        known = of_phase[~np.isnan(of_phase)]
        figures[phase] = {"steps": len(known), "speed": 1.0 / trimmed_mean(known) if len(known) else None}
    return figures


def speed_text(figures: Figures) -> str:
    """`speed_figures` in words."""
    known = {phase: of for phase, of in figures.items() if of["speed"] is not None}
    if not known:
        return "not known, for lack of probe steps in the run or in the calibration"
    return ", ".join(
        f"{phase} {of['speed']:.2f} x of the calibrated ({of['steps']:,} probe steps)" for phase, of in known.items()
    )
