"""Machines beside a calibration are there as long as it, and no longer."""

from dataclasses import replace

import psutil
import pytest

pytest.importorskip("torch")

from emu.execution.calibration.job import Effort, Job
from emu.execution.calibration.neighbour import neighbours
from emu.execution.model import random_model
from tests.tiny_checkpoints import CONFIG

JOB = Job(random_model("tiny", "fp32", CONFIG), "h", "cpu", 1, 100, 16, 2, Effort(True, 1, 0.001, 0.0, 5.0))


def workers(before):
    mine = [child for child in psutil.Process().children(recursive=True) if child not in before]
    return [child for child in mine if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.parametrize("num_beside", [0, 2])
def test_they_work_as_long_as_it_measures(num_beside):
    before = psutil.Process().children(recursive=True)
    with pytest.raises(KeyboardInterrupt), neighbours(replace(JOB, num_beside=num_beside)):
        assert len(workers(before)) == num_beside
        raise KeyboardInterrupt
    assert workers(before) == []
