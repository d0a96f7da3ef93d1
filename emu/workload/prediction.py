"""Guesses of how long each output will be, which a placement may be given: right but for a configurable error."""

from dataclasses import replace
from typing import Protocol

import numpy as np

from emu.core import setting
from emu.core.seeding import random_stream
from emu.workload.workload import MAX_NUM_TOKENS, Workload

MAX_LOG_ERROR = 100.0  # exp of it times the errors of all requests that there may be is a double


class Prediction(Protocol):
    """What every `conf/prediction/*.yaml` describes."""

    def apply(self, workload: Workload, seed: int) -> Workload:
        """The workload with its `predicted_output_tokens`."""
        ...


class NoPrediction:
    """Nobody knows how long an output will be."""

    def apply(self, workload: Workload, seed: int) -> Workload:
        return workload


class NoisyPrediction:
    """Each output's true length times exp(x), x normal around 0 with standard deviation `log_error`; at least 1 token.

    0.1 is about 10 % off either way; length predictors published for LLM serving are off by a factor of 1.5 to 2 (0.4 to 0.7).
    The error of the i-th request depends on the seed and i alone.
    """

    def __init__(self, log_error: float) -> None:
        self.log_error = setting.between("prediction.log_error", log_error, 0, MAX_LOG_ERROR)

    def apply(self, workload: Workload, seed: int) -> Workload:
        errors = random_stream(seed, "prediction").standard_normal(len(workload)) * self.log_error
        predicted = np.rint(workload.output_tokens * np.exp(errors)).clip(1, MAX_NUM_TOKENS)
        return replace(workload, predicted_output_tokens=predicted.astype(np.int64))
