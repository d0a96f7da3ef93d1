"""Probe steps: steps that never change, by which the speed of a machine now is compared with that in its calibration."""

from collections.abc import Sequence

import numpy as np

PREFILL, DECODE = PHASES = ("prefill", "decode")
NUM_TOKENS = 64  # of the prompt that is prefilled, and before the token that is decoded


def trimmed_mean(values: Sequence[float] | np.ndarray) -> float:
    """The mean without the smallest and the largest twentieth of the values: one long pause of the host in many moves nothing.
    Raises ValueError for no values."""
    if not len(values):
        raise ValueError("the mean of no values")
    ordered = np.sort(values)
    cut = len(ordered) // 20
    return float(ordered[cut : len(ordered) - cut].mean())
