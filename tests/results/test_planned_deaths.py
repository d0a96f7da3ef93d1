"""Which planned deaths changed nothing, and why."""

import pytest
from facts import recorded, run_record

from emu.core.facts import PoolChanged
from emu.results.planned_deaths import without_effect


@pytest.mark.parametrize(
    ("faults", "deaths", "expected"),
    [
        ([(0, 2.0)], [(2.005, 0)], []),
        ([(0, 3.0), (0, 2.0)], [(2.005, 0)], [("p0", 3.0, "it was dead from 2.005 s on")]),
        ([(0, 2.0), (0, 2.0)], [(2.005, 0)], [("p0", 2.0, "it was dead from 2.005 s on")]),
        ([(1, 5.0)], [(2.0, 1)], [("d0", 5.0, "it was dead from 2 s on")]),  # of something else
        ([(1, 5.0)], [(4.9995, 1)], []),  # the driver's timer was early
        ([(2, 12.0)], [], [("d1", 12.0, "the run ended at 10 s")]),
        ([(2, 9.999)], [], [("d1", 9.999, "every request had ended when it was noticed; the run ended at 10 s")]),
        (
            [(2, 12.0), (1, 11.0), (0, 1.0)],
            [(1.005, 0)],
            [("d0", 11.0, "the run ended at 10 s"), ("d1", 12.0, "the run ended at 10 s")],
        ),
    ],
)
def test_the_deaths_that_changed_nothing(faults, deaths, expected):
    recorder = recorded([(0.0, 10, 2)], [(time_s, PoolChanged(machine, "dead")) for time_s, machine in deaths])
    record = run_record(recorder, faults=tuple(faults))
    found = without_effect(record, recorder.columns().pool_moves)
    assert found == [{"machine": machine, "at_s": at_s, "why": why} for machine, at_s, why in expected]
