"""Measurements of steps on disk, each written as it is taken, so that a calibration that is stopped goes on."""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from emu.execution.calibration.step_shape import StepShape


class CalibrationError(ValueError):
    """A calibration that cannot be made. The text is one line for the user."""


class Measurement(NamedTuple):
    """What one round took of one shape: seconds of each step, from the end of what was before it to its own end.

    `own_s` is the part of each of `steps_s` that is in the engine; the rest lies between two steps. `idle_steps_s` are of steps
    on a machine that was idle before them, from their start on. `waited` is the share of the engine's time in which other
    processes had its core; it is in none of these times. 0 where that cannot be known.
    """

    round: int
    shape: StepShape
    steps_s: tuple[float, ...]
    own_s: tuple[float, ...]
    idle_steps_s: tuple[float, ...]
    waited: float

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
        lines = path.read_text().split("\n") if path.exists() else []
        complete = lines[:-1]  # a line that was being written when the process died lacks its end
        if not complete:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(subject) + "\n")
            return
        if lines[-1]:
            path.write_text("".join(f"{line}\n" for line in complete))
        found = json.loads(complete[0])
        if found != json.loads(json.dumps(subject)):
            keys = [key for key in {**found, **subject} if found.get(key) != json.loads(json.dumps(subject.get(key)))]
            raise CalibrationError(
                f"{path}: holds an unfinished calibration of something else ({', '.join(keys)} differ); "
                "delete it, or calibrate by another name"
            )
        self.done = [_read(json.loads(line)) for line in complete[1:]]

    def add(self, measurement: Measurement) -> None:
        self.done.append(measurement)
        with self._path.open("a") as file:
            file.write(json.dumps(measurement._asdict()) + "\n")


def rounds_of(measurements: list[Measurement]) -> dict[StepShape, list[float]]:
    """By shape the measures of its rounds."""
    rounds_s: dict[StepShape, list[float]] = {}
    for measurement in measurements:
        rounds_s.setdefault(measurement.shape, []).append(measurement.measure_s)
    return rounds_s


def _read(row: dict[str, Any]) -> Measurement:
    prompts, contexts = row.pop("shape")
    shape = StepShape(tuple(tuple(prompt) for prompt in prompts), tuple(contexts))
    times = {name: tuple(row[name]) for name in ("steps_s", "own_s", "idle_steps_s")}
    return Measurement(round=row["round"], shape=shape, waited=row["waited"], **times)
