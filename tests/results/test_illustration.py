"""Figures by a timing that is no measurement are illustrative: the verdict says so, below what is worse."""

from dataclasses import replace

import pytest

from emu.core.timing.provenance import Provenance
from emu.results.verdict import Verdict, illustrative
from tests.results.facts import run_cluster, summary_of

MEASURED = Provenance("profile", "a paper", "2024-03-29", "3 %")
CONSTANT = Provenance("constant")
LINE = "timing=constant is not a measurement: latencies, service levels and cost are illustrative"


@pytest.fixture(scope="module")
def summary():
    """summary(provenance, ...) -> that of a run whose machines have their times from there."""
    record = run_cluster(("p0", "d0"), [(0.0, 10, 3)])

    def of(provenance, **changes):
        return summary_of(replace(record, cluster=replace(record.cluster, timing=provenance), **changes))

    return of


def test_a_measured_timing_states_its_error(summary):
    found = summary(MEASURED)
    assert (found["verdict"], found["verdict_reasons"]) == ("VALID", [])
    assert {key: found["timing"][key] for key in ("name", "source", "date", "error", "illustrative")} == {
        "name": "profile",
        "source": "a paper",
        "date": "2024-03-29",
        "error": "3 %",
        "illustrative": "",
    }


@pytest.mark.parametrize("flaw", [{}, {"source": "a simulator", "date": "2024", "error": "3 %", "flaw": "too fast"}])
def test_what_is_no_measurement_is_illustrative(summary, flaw):
    provenance = Provenance("constant", **flaw)
    found = summary(provenance)
    line = LINE.replace("measurement:", "measurement (too fast):") if flaw else LINE
    assert (found["verdict"], found["verdict_reasons"]) == ("ILLUSTRATIVE", [line])
    assert (found["timing"]["error"], found["timing"]["illustrative"]) == (None, line)


def test_one_emulated_machine_is_enough_and_without_one_only_the_service_levels_are(summary):
    assert summary(CONSTANT, real=(0,))["verdict_reasons"] == [LINE]
    all_real = summary(CONSTANT, real=(0, 1))
    assert all_real["verdict"] == "ILLUSTRATIVE"
    assert all_real["verdict_reasons"] == ["timing=constant is not a measurement: service levels are illustrative"]
    assert summary(MEASURED, real=(0, 1))["verdict"] == "VALID"


def test_it_is_better_than_degraded_and_worse_than_valid(summary):
    verdicts = [illustrative(Verdict(name, ["a reason"]), LINE) for name in ("INVALID", "DEGRADED", "VALID")]
    assert [one.verdict for one in verdicts] == ["INVALID", "DEGRADED", "ILLUSTRATIVE"]
    assert all(one.reasons == ["a reason", LINE] for one in verdicts)
    assert summary(CONSTANT, interrupted="Ctrl-C")["verdict"] == "INVALID"
