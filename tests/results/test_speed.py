"""Probe steps of real machines, by hand: calibrated are 50 ms of a prefill and 10 ms of a decode."""

from dataclasses import replace

import numpy as np
import pytest
from facts import cluster_of, recorded, run_record

from emu.core.facts import ProbeStepRun
from emu.core.timing.constant import ConstantTiming
from emu.results.speed import probe_ratios, speed_figures, speed_text


class ProbedTiming(ConstantTiming):
    def probe_s(self, phase):
        return {"prefill": 0.05, "decode": 0.01}[phase]


def real_run(steps, timings):
    """The record of a run with these probe steps, and its columns."""
    cluster = cluster_of(("p0", "d0", "d1"))
    machines = tuple(replace(machine, timing=timing) for machine, timing in zip(cluster.machines, timings, strict=True))
    facts = [(1.0 + number, ProbeStepRun(*step)) for number, step in enumerate(steps)]
    record = run_record(recorded([(0, 8, 1)], facts), cluster=replace(cluster, machines=machines), real=(0, 1))
    return record, record.recorder.columns()


PROBED = [ProbedTiming(0.001, 0.03)] * 3


def test_the_speed_of_a_phase_is_that_of_all_machines_together():
    steps = [(0, "prefill", 0.1), (1, "decode", 0.02), (1, "decode", 0.01), (0, "decode", 0.045)]
    record, columns = real_run(steps, PROBED)
    np.testing.assert_allclose(probe_ratios(record, columns), [2, 2, 1, 4.5])
    figures = speed_figures(record, columns)
    assert figures == {"prefill": {"steps": 1, "speed": 0.5}, "decode": {"steps": 3, "speed": pytest.approx(0.4)}}
    assert (
        speed_text(figures)
        == "prefill 0.50 x of the calibrated (1 probe steps), decode 0.40 x of the calibrated (3 probe steps)"
    )
    np.testing.assert_array_equal(columns.probe_steps.time_s, [1, 2, 3, 4])


def test_machines_whose_timing_was_not_probed_do_not_count():
    steps = [(0, "prefill", 0.1), (1, "prefill", 0.05), (0, "decode", 0.02)]
    record, columns = real_run(steps, [ConstantTiming(0.001, 0.03), *PROBED[1:]])
    figures = speed_figures(record, columns)
    assert figures == {"prefill": {"steps": 1, "speed": 1.0}, "decode": {"steps": 0, "speed": None}}
    assert speed_text(figures) == "prefill 1.00 x of the calibrated (1 probe steps)"


def test_without_probe_steps_nothing_is_known():
    figures = speed_figures(*real_run([], PROBED))
    assert [of["speed"] for of in figures.values()] == [None, None]
    assert speed_text(figures).startswith("not known")


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_one_pause_of_the_host_changes_nothing(phase):
    steady = [(0, phase, 0.05 if phase == "prefill" else 0.01)] * 30
    record, columns = real_run([*steady, (0, phase, 3.0)], PROBED)
    assert speed_figures(record, columns)[phase]["speed"] == pytest.approx(1.0)
