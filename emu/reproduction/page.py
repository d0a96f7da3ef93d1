"""The page of the reproduction: one HTML file that needs nothing but itself."""

from collections.abc import Mapping, Sequence
from html import escape

from emu.compat.splitwise_sim.timing import PROVENANCE
from emu.reproduction import figures
from emu.reproduction.finding import Finding, written
from emu.reproduction.lab import CALIBRATED, COMPATIBLE, RULES, WORKLOADS, Lab
from emu.reproduction.throughput import AS_PUBLISHED
from emu.results.report import card
from emu.results.report.page import document
from emu.results.report.sweep import CSS

COLUMNS = (COMPATIBLE, AS_PUBLISHED, RULES, CALIBRATED)
HEADINGS = {
    COMPATIBLE: "compatible mode",
    AS_PUBLISHED: "as published",
    RULES: "its rules, calibrated timing",
    CALIBRATED: "calibrated",
}
WHAT_MODES_ARE = {
    "compatible mode": "experiment=splitwise_sim: the published simulator's rules, memory and timing lookup. "
    f"ILLUSTRATIVE: {PROVENANCE.why_illustrative()}.",
    "as published": "the same runs, judged as the published analysis does: rates in steps of 10, TBT over tokens instead of "
    "gaps, references by its own lookup. What is left between it and the paper: the paper's traces, drawn without a seed, ten "
    "minutes long, and its rates' resolution; anything else is unknown.",
    "its rules, calibrated timing": "the compatible mode with timing=profile: beside its neighbours it tells what is due to "
    "the timing from what is due to rules and memory.",
    "calibrated": "emu's own machines, network and timing.",
}
LINES = (
    '<p class="note lines">A line ends where its cluster is saturated, three rates in a row are missed, or an objective is '
    "exceeded twofold; at the upper edge it is beyond the chart.</p>"
)
FURTHER_CSS = """
.why { margin: 8px 0 0; padding-left: 18px; font-size: 12.5px; line-height: 1.5; color: var(--muted); }
.claim { margin-top: 16px; } .claim .says { margin: 2px 0 8px; }
.says ~ .scroll th.text, .summary tbody th.text { min-width: 300px; } .summary td.text { min-width: 340px; line-height: 1.4; }
thead th { white-space: normal; vertical-align: bottom; }
header + .card { margin-top: 16px; }
"""


def render(findings: Sequence[Finding], lab: Lab | None, facts: Mapping[str, str]) -> str:
    """The page; without `lab`, without its charts."""
    sections = [
        '<header><h1>Splitwise, reproduced</h1><p class="subtitle">The claims of Patel et al. (ISCA 2024), measured by emu'
        f"</p></header>{card.box('', '', card.facts(dict(facts) | WHAT_MODES_ARE))}",
        card.section("Summary", _summary(findings)),
        card.section("The paper's claims", *map(_claim, findings)),
    ]
    if lab is not None:
        sections.append(card.section("Goodput, price and power of each design", figures.goodput_tables(lab)))
        for workload, name in WORKLOADS.items():
            for mode in (COMPATIBLE, CALIBRATED):
                charts = figures.slowdown_charts(lab, workload, mode)
                sections.append(card.section(f"Slowdown against the load: {name}, iso-power, {HEADINGS[mode]}", LINES, charts))
        sections.append(card.section("Active tokens, conversation, iso-power", figures.active_token_charts(lab)))
    return document("Splitwise, reproduced", sections, CSS + FURTHER_CSS)


def _summary(findings: Sequence[Finding]) -> str:
    """The figures that the paper has too; why they differ, once a claim."""
    rows = []
    for finding in findings:
        known = [figure for figure in finding.figures if figure.paper is not None]
        for index, figure in enumerate(known):
            rows.append(
                [
                    f"{escape(figure.what)}<small>{escape(finding.name)}</small>",
                    f"<b>{written(figure.paper, figure.kind)}</b>",
                    *(written(figure.values.get(column), figure.kind) for column in COLUMNS),
                    f"<small>{escape(finding.conclusion)}</small>" if not index else "",
                ]
            )
    header = ["", "paper", *HEADINGS.values(), "why"]
    table = card.table(header, rows, text_columns=(0, len(header) - 1))
    return f'<div class="card summary">{table}</div>'


def _claim(finding: Finding) -> str:
    columns = [column for column in COLUMNS if any(column in figure.values for figure in finding.figures)]
    rows = [
        [
            escape(figure.what),
            f"<b>{written(figure.paper, figure.kind)}</b>",
            *(written(figure.values.get(column), figure.kind) for column in columns),
        ]
        for figure in finding.figures
    ]
    table = card.table(["", "paper", *(HEADINGS[column] for column in columns)], rows)
    why = "".join(f"<li>{escape(line)}</li>" for line in finding.why)
    conclusion = f"<p class='note'>{escape(finding.conclusion)}</p>"
    details = f"<details><summary>More of what the runs say</summary><ul class='why'>{why}</ul></details>" if why else ""
    heading = f"<h3>{escape(finding.name)}</h3><p class='note says'>{escape(finding.where)}. {escape(finding.says)}</p>"
    return f'<div class="card claim">{heading}{table}{conclusion}{details}</div>'
