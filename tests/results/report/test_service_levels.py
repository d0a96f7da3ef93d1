"""The section on objectives and cost shows the summary's numbers."""

import re
from dataclasses import replace

import pytest
from test_report import SLO, Outline, plots, record, summary_of, workload

from emu.results.report import write_report


@pytest.fixture
def page(tmp_path):
    """page(run, summary) -> the text of its report."""

    def write(run, summary):
        path = tmp_path / "report.html"
        write_report(path, run, run.recorder.columns(), summary)
        return path.read_text(encoding="utf-8")

    return write


def section(page):
    """The text of the section, cell by cell."""
    html = page[page.index("<h2>Service levels and cost</h2>") :]
    return Outline(html[: html.index("</section>")]).text


def test_every_objective_with_its_limit_and_margin(page):
    run = record(["prefill", "decode"], workload())
    summary = summary_of(run)
    text = section(page(run, summary))
    for metric, levels in summary["slo"]["limits"].items():
        cells = text[text.index(metric.upper()) + 1 + (metric == "tbt") :][:6]
        for value, note, level in zip(cells[::2], cells[1::2], levels.values(), strict=True):
            assert value == f"{level['value']:.3f}"
            assert note == f"limit {level['limit']:g}, margin {100 * level['margin']:+,.0f} %"
    assert "".join(text).count("limit ") == 12 + 1  # nine, TBT told the other way, and the note
    assert "met with TBT by each request's mean, met by every gap." in "".join(text)


def test_what_is_missed_is_marked(page):
    run = record(["prefill", "decode"], workload())
    html = page(run, summary_of(run, replace(SLO, tbt="gaps", tbt_p90=0.5)))
    text = "".join(section(html))
    assert "missed with TBT by every gap, missed by each request's mean." in text
    assert re.search(r"limit 0\.5, margin −\d+ %", text)
    assert html.count('<b class="bad">') == 2 + 2  # both verdicts; the limit for gaps and for means


def test_requests_that_do_not_finish_are_told(page):
    run = record(["prefill", "decode"], workload(10), faults=[(0, 0.001), (1, 0.002)])
    text = "".join(section(page(run, summary_of(run))))
    assert "10 of 10 requests did not finish." in text
    assert "Requests within all three p99 limits: 0.0 %, 0.00 a second." in text


def test_no_timing_of_the_reference(page):
    run = record(["prefill", "decode"], workload(5))
    summary = summary_of(run)
    summary["slo"] |= {"met": None, "reason": "no timing on <box>"}
    html = page(run, summary)
    assert "Not judged: no timing on &lt;box&gt;" in html
    assert "Cost and energy" in Outline(html).headings


def test_cost_and_energy(page):
    run = record(["mixed"], workload(1, output_tokens=101, rate_rps=1.0))  # 20 ms of prefill, 100 steps of 30 ms
    summary = summary_of(run)
    text = section(page(run, summary))
    row = text[text.index("in all") + 1 :][:3]
    assert [float(cell) for cell in row] == pytest.approx(
        [summary["cost"]["machine_hours"]["total"], summary["cost"]["dollars"]["total"], summary["energy"]["kwh"]["total"]],
        rel=1e-3,
    )
    assert "power=rated, 1.0 kW on average." in "".join(text)


def test_time_by_active_tokens_ends_at_the_most(page):
    html = page(run := record(["prefill", "decode"], workload()), summary_of(run))
    lines = plots(html)["Time by active tokens"].findall("path[@data-name]")
    assert [line.get("data-name") for line in lines] == ["prefill machines", "decode machines"]
    for line in lines:
        heights = [float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", line.get("d"))]
        assert heights == sorted(heights, reverse=True)  # pixels: from the bottom up
        assert heights[-1] == 26.0  # 100 %
