import pytest

from emu.execution.calibration.measurements import CalibrationError, Measurement, MeasurementFile, rounds_of
from emu.execution.calibration.step_shape import StepShape

PREFILL, DECODE = StepShape(((8, 4), (2, 0))), StepShape((), (5, 6))
FIRST = Measurement(0, PREFILL, (0.3, 0.1), (0.2, 0.05), (0.4,), 0.25)
SECOND = Measurement(1, PREFILL, (0.2,), (0.1,), (0.1,), 0.0)
THIRD = Measurement(1, DECODE, (0.02, 0.03, 0.5), (0.01, 0.01, 0.01), (), 0.0)


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
    assert rounds_of([FIRST, SECOND, THIRD]) == by_shape
