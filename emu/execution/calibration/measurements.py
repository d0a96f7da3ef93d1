"""Measurements of steps on disk, each written as it is taken, so that a calibration that is stopped goes on."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from emu.core.timing.probe import DECODE, trimmed_mean
from emu.execution.calibration.step_shape import StepShape
from emu.files import parse_json, read_text, write_text

NUM_AROUND = 7  # measurements before and after one, whose probes tell the host's speed then: some 5 seconds


class CalibrationError(ValueError):
    """A calibration that cannot be made. The text is one line for the user."""


class Measurement(NamedTuple):
    """What one round took of one shape: seconds of each step, from the end of what was before it to its own end.

    `own_s` is the part of each of `steps_s` that is in the engine; the rest lies between two steps. `idle_steps_s` are of steps
    on a machine that was idle before them, from their start on. `probe_s` are the seconds in the engine of a probe step (see
    `core.timing.probe`) just before, of a prefill and of a decode.
    """

    round: int
    shape: StepShape
    steps_s: tuple[float, ...]
    own_s: tuple[float, ...]
    idle_steps_s: tuple[float, ...]
    probe_s: tuple[float, float]

    @property
    def measure_s(self) -> float:
        """The round's measure of this shape: the mean, for what runs of many steps take is to be predicted."""
        return fmean((*self.steps_s, *self.idle_steps_s))


class MeasurementFile:
    """The measurements of one calibration, in `path`: JSON, a line each, after a line that says what is measured.

    `subject` is what they are measurements of: in a file with another one nothing is added. Raises CalibrationError.
    """

    def __init__(self, path: Path, subject: Mapping[str, Any]) -> None:
        self._path = path
        self.done: list[Measurement] = []
        lines = read_text(path).split("\n") if path.exists() else []
        complete = lines[:-1]  # a line that was being written when the process died lacks its end
        if not complete:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(json.dumps(subject) + "\n", path)
            return
        if lines[-1]:
            write_text("".join(f"{line}\n" for line in complete), path)
        try:
            found = dict(parse_json(complete[0]))
            done = [_read(parse_json(line)) for line in complete[1:]]
        except (ValueError, TypeError, KeyError) as error:
            raise CalibrationError(f"{path}: not the measurements of a calibration; delete it") from error
        if found != json.loads(json.dumps(subject)):
            keys = [key for key in {**found, **subject} if found.get(key) != json.loads(json.dumps(subject.get(key)))]
            raise CalibrationError(
                f"{path}: holds an unfinished calibration of something else ({', '.join(keys)} differ); "
                "delete it, or calibrate by another name"
            )
        self.done = done

    def add(self, measurement: Measurement) -> None:
        self.done.append(measurement)
        with self._path.open("a") as file:
            file.write(json.dumps(measurement._asdict()) + "\n")


class Round(NamedTuple):
    """What one round took of a shape: as measured, and at the calibration's typical speed."""

    measured_s: float
    steady_s: float


def slowness(measurements: Sequence[Measurement]) -> np.ndarray:
    """How much longer than typically steps took at the time of each measurement: (measurements, 2), of prefills and of decodes.

    A host that others share has times at which all steps take longer. Told by the median of the probe steps around a
    measurement: one probe alone wavers more than the host does.
    """
    probes_s = np.array([measurement.probe_s for measurement in measurements])
    around = (slice(max(0, index - NUM_AROUND), index + NUM_AROUND + 1) for index in range(len(probes_s)))
    medians_s = np.array([np.median(probes_s[window], axis=0) for window in around])
    return medians_s / [trimmed_mean(of_phase) for of_phase in medians_s.T]


def rounds_of(measurements: Sequence[Measurement]) -> dict[StepShape, list[Round]]:
    """By shape its rounds."""
    rounds: dict[StepShape, list[Round]] = {}
    for measurement, (prefill, decode) in zip(measurements, slowness(measurements).tolist(), strict=True):
        steady_s = measurement.measure_s / (decode if measurement.shape.phase == DECODE else prefill)
        rounds.setdefault(measurement.shape, []).append(Round(measurement.measure_s, steady_s))
    return rounds


def typical_probe_s(measurements: Sequence[Measurement]) -> tuple[float, float]:
    """What a probe step took during the calibration, of a prefill and of a decode."""
    prefill_s, decode_s = zip(*(measurement.probe_s for measurement in measurements), strict=True)
    return trimmed_mean(prefill_s), trimmed_mean(decode_s)


def _read(row: dict[str, Any]) -> Measurement:
    prompts, contexts = row.pop("shape")
    shape = StepShape(tuple(tuple(prompt) for prompt in prompts), tuple(contexts))
    times = {name: tuple(row[name]) for name in ("steps_s", "own_s", "idle_steps_s", "probe_s")}
    return Measurement(round=row["round"], shape=shape, **times)
