"""The charts of real machines in the report."""

from dataclasses import replace

import pytest
from test_report import Outline, assert_drawn_inside, plots, record, summary_of, workload

from emu.core.facts import ProbeStepRun
from emu.core.timing.constant import ConstantTiming
from emu.results.report import write_report


@pytest.fixture
def page(tmp_path):
    def render(**changes):
        run = record(["prefill", "decode", "decode"], workload(), **changes)
        write_report(tmp_path / "report.html", run, run.recorder.columns(), summary_of(run))
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return render


def test_each_real_machine_has_a_chart_and_a_mark_in_the_table(page):
    html = page(real=(0, 2))
    outline = Outline(html)
    assert "Real machines and their timing models" in outline.headings
    assert {"Steps of m0", "Steps of m2"} <= set(outline.headings) and "Steps of m1" not in outline.headings
    assert {"m0 (real)", "m1", "m2 (real)"} <= set(outline.text)
    assert outline.text[outline.text.index("real machines") + 1] == "m0, m2"
    assert "median by kind: prefill 1.00 x." in "".join(outline.text)
    median = plots(html)["Steps of m2"].find("path[@data-name='median']").get("d")
    assert len(median) > 20
    assert_drawn_inside(html)


class ProbedTiming(ConstantTiming):
    def probe_s(self, phase):
        return 0.05


def test_probe_steps_are_drawn_beside_the_steps_of_their_machine(tmp_path):
    run = record(["prefill", "decode", "decode"], workload(), real=(0, 2))
    machines = tuple(replace(machine, timing=ProbedTiming(0.0001, 0.03)) for machine in run.cluster.machines)
    run = replace(run, cluster=replace(run.cluster, machines=machines))
    for number in range(6):
        run.recorder.record(
            0.5 * number, ProbeStepRun(0, "prefill", 0.1 if number else 5.0)
        )  # the first one is beyond the axis
    write_report(tmp_path / "report.html", run, run.recorder.columns(), summary_of(run))
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Speed of the real machines: prefill 0.05 x of the calibrated (6 probe steps)." in "".join(Outline(html).text)
    assert len(plots(html)["Steps of m0"].find("path[@data-name='probe steps']").get("d")) > 20
    assert plots(html)["Steps of m2"].find("path[@data-name='probe steps']") is None
    assert_drawn_inside(html)


def test_an_emulated_cluster_has_no_such_section(page):
    assert "Real machines" not in page()


def test_many_real_machines_of_one_kind_are_counted_in_their_row(tmp_path):
    run = record(["mixed"] * 14, workload(20, output_tokens=5), real=(1, 2))
    write_report(tmp_path / "report.html", run, run.recorder.columns(), summary_of(run))
    assert "14 machines (2 real)" in Outline((tmp_path / "report.html").read_text(encoding="utf-8")).text
