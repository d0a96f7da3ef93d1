"""A timing is a measurement if its file says of what, when, and how wrong it is."""

import pytest
import yaml
from hydra.utils import instantiate

from emu.core.timing.provenance import Provenance
from tests.configured import CONF

ILLUSTRATIVE = "is not a measurement{}: latencies, service levels and cost are illustrative"


@pytest.mark.parametrize("name", ["profile", "llama_30m_cpu"])
def test_committed_fits_are_measurements(load, name):
    provenance = load("timing", name).provenance
    assert provenance.is_measured and provenance.name == name
    assert provenance.date[:2] == "20" and "%" in provenance.error


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("constant", f"timing=constant {ILLUSTRATIVE.format('')}"),
        (
            "splitwise_sim",
            f"timing=splitwise_sim {ILLUSTRATIVE.format(' (its decode times are 39 to 51 % too short at batch 64)')}",
        ),
    ],
)
def test_what_is_no_measurement_says_so(load, name, line):
    provenance = load("timing", name).provenance
    assert not provenance.is_measured and provenance.why_illustrative() == line


@pytest.mark.parametrize("name", ["profile", "llama_30m_cpu"])
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"source": None}, " (its file states no source)"),
        ({"date": None}, " (its file states no date)"),
        ({"error": " "}, " (its file states no error)"),
        ({"source": "", "date": None, "error": None}, " (its file states no source and no date and no error)"),
    ],
)
def test_a_fit_that_lacks_a_key_is_no_measurement(name, changes, why):
    values = yaml.safe_load((CONF / "timing" / f"{name}.yaml").read_text())
    for key, value in changes.items():
        del values[key]
        for variant in (values, values | {key: value}):
            provenance = instantiate(variant).provenance
            assert not provenance.is_measured
    assert provenance.why_illustrative() == f"timing={name} {ILLUSTRATIVE.format(why)}"


def test_a_file_without_a_name_is_the_timing():
    assert Provenance().why_illustrative("service levels") == "the timing is not a measurement: service levels are illustrative"
