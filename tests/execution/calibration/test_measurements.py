import numpy as np
import pytest

from emu.execution.calibration.measurements import (
    CalibrationError,
    Measurement,
    MeasurementFile,
    rounds_of,
    slowness,
    typical_probe_s,
)
from emu.execution.calibration.step_shape import StepShape

PREFILL, DECODE = StepShape(((8, 4), (2, 0))), StepShape((), (5, 6))
FIRST = Measurement(0, PREFILL, (0.3, 0.1), (0.2, 0.05), (0.4,), (0.05, 0.01))
SECOND = Measurement(1, PREFILL, (0.2,), (0.1,), (0.1,), (0.05, 0.01))
THIRD = Measurement(1, DECODE, (0.02, 0.03, 0.5), (0.01, 0.01, 0.01), (), (0.05, 0.01))


def test_what_was_measured_is_there_at_the_next_start(tmp_path):
    path = tmp_path / "deep" / "m.jsonl"
    file = MeasurementFile(path, {"model": "m", "bounds": (1, 2)})
    file.add(FIRST)
    file.add(SECOND)
    again = MeasurementFile(path, {"model": "m", "bounds": (1, 2)})
    assert again.done == [FIRST, SECOND]
    again.add(THIRD)
    assert MeasurementFile(path, {"model": "m", "bounds": (1, 2)}).done == [FIRST, SECOND, THIRD]


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_that_was_being_written_is_lost_alone(tmp_path, cut):
    path = tmp_path / "m.jsonl"
    file = MeasurementFile(path, {"model": "m"})
    file.add(FIRST)
    file.add(SECOND)
    path.write_text(path.read_text()[:-cut])
    again = MeasurementFile(path, {"model": "m"})
    assert again.done == [FIRST]
    again.add(THIRD)
    assert MeasurementFile(path, {"model": "m"}).done == [FIRST, THIRD]


def test_nothing_is_added_to_measurements_of_something_else(tmp_path):
    path = tmp_path / "m.jsonl"
    MeasurementFile(path, {"model": "m", "torch": "1"}).add(FIRST)
    before = path.read_text()
    with pytest.raises(CalibrationError, match=r"m\.jsonl: holds an unfinished calibration of something else \(torch differ"):
        MeasurementFile(path, {"model": "m", "torch": "2"})
    assert path.read_text() == before


def test_the_measure_of_a_round_is_the_mean_of_all_its_steps():
    by_shape = {PREFILL: [pytest.approx(0.8 / 3), pytest.approx(0.15)], DECODE: [pytest.approx(0.55 / 3)]}
    rounds = rounds_of([FIRST, SECOND, THIRD])
    assert {shape: [one.measured_s for one in of_shape] for shape, of_shape in rounds.items()} == by_shape
    assert all(one.steady_s == pytest.approx(one.measured_s) for of_shape in rounds.values() for one in of_shape)


def test_what_is_measured_while_the_host_is_slow_is_told_at_its_typical_speed():
    """Decode steps take twice as long, prefills half as long again, in the last quarter of the calibration."""
    measurements = []
    for number in range(200):
        slow = number >= 150
        prefill_s, decode_s = 0.05 * (1.5 if slow else 1.0), 0.01 * (2.0 if slow else 1.0)
        shape, step_s = (PREFILL, 4 * prefill_s) if number % 2 else (DECODE, 3 * decode_s)
        measurements.append(Measurement(number // 2, shape, (step_s,), (step_s,), (), (prefill_s, decode_s)))
    typical_s = typical_probe_s(measurements)
    assert typical_s == (pytest.approx(0.0556, abs=1e-4), pytest.approx(0.0122, abs=1e-4))  # the means less a twentieth
    rounds = rounds_of(measurements)
    assert max(one.measured_s for one in rounds[DECODE]) == pytest.approx(0.06)
    for shape, expected_s in ((PREFILL, 4 * typical_s[0]), (DECODE, 3 * typical_s[1])):
        steady_s = [one.steady_s for one in rounds[shape]]
        far_from_the_change = steady_s[:70] + steady_s[80:]
        assert far_from_the_change == pytest.approx([expected_s] * len(far_from_the_change))


def test_one_slow_probe_alone_changes_nothing():
    probes = [(0.05, 0.01)] * 20 + [(0.5, 0.1)] + [(0.05, 0.01)] * 20
    measurements = [Measurement(number, DECODE, (0.03,), (0.03,), (), probe_s) for number, probe_s in enumerate(probes)]
    assert [one.steady_s for one in rounds_of(measurements)[DECODE]] == pytest.approx([0.03] * 41)
    assert slowness(measurements) == pytest.approx(np.ones((41, 2)))
