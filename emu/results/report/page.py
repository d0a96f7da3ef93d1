"""The report of a run: one HTML page that needs nothing but itself."""

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

from emu.core.timing.model import TimingModel
from emu.files import write_text
from emu.results.columns import Columns
from emu.results.report.batches import batches_section
from emu.results.report.handover import handover_section
from emu.results.report.incidents import incidents_section
from emu.results.report.latency import latency_section
from emu.results.report.lateness import lateness_section
from emu.results.report.load import load_section
from emu.results.report.machines import machines_section
from emu.results.report.origin import bottleneck, failures, origin
from emu.results.report.overview import figures, settings_and_latency, verdict_banner
from emu.results.report.run import ReportedRun
from emu.results.report.service_levels import service_level_section
from emu.results.report.shadow import shadow_section
from emu.results.report.style import CSS, SCRIPT
from emu.results.run_record import RunRecord, packing

# Charts place things by style attributes, which no hash covers.
POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
    f"script-src 'sha256-{b64encode(sha256(SCRIPT.encode()).digest()).decode()}'; base-uri 'none'; form-action 'none'\">"
)
# Control characters, and halves of surrogate pairs, which stand for bytes of a path that are no UTF-8.
NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
NOTES = (
    "TTFT: arrival to first token. TBT: each gap between two consecutive tokens of a request, over all gaps. "
    "TPOT: a request's (last − first token) / (tokens − 1). E2E: arrival to last token. p50, p90, p99: percentiles.",
    "Lines over time show the mean in each of 300 equal bins, stepped lines the rate in wider ones.",
)


def write_report(
    path: Path,
    record: RunRecord,
    columns: Columns,
    summary: Mapping[str, Any],
    *,
    warmup_s: float = 0.0,
    title: str = "",
    settings: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    command: str = "",
    reference: TimingModel | None = None,
) -> None:
    """Write the report to `path`; `columns` are those of the record's recorder, `summary` is made of them and `warmup_s`.

    `settings` are further lines of "What was run", name to value; `overrides` are those of the command line,
    `command` is all of it, `reference` the timing that slowdowns are against. The same arguments give the same bytes.
    """
    run = ReportedRun(record, columns, summary, warmup_s, settings or {}, overrides, command, reference)
    write_text(render(run, title or _title(record)), path)


def render(run: ReportedRun, title: str) -> str:
    subtitle = f"Emulated LLM inference cluster · runtime {run.record.runtime} · seed {run.record.seed}"
    sections = (
        f'<header><h1>{escape(title)}</h1><p class="subtitle">{escape(subtitle)}</p></header>',
        verdict_banner(run),
        origin(run),
        figures(run),
        bottleneck(run),
        failures(run),
        settings_and_latency(run),
        service_level_section(run),
        latency_section(run),
        load_section(run),
        batches_section(run),
        machines_section(run),
        shadow_section(run),
        handover_section(run),
        lateness_section(run),
        incidents_section(run),
        _footer(run),
    )
    return document(f"{run.summary['verdict']}: {title}", sections)


def document(title: str, sections: Sequence[str], further_css: str = "") -> str:
    """A whole page of these sections, which are HTML. It loads nothing, and runs no script but its own."""
    body = "\n".join(sections)
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{POLICY}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}{further_css}</style></head>\n"
        f"<body><main>{body}</main><script>{SCRIPT}</script></body></html>\n"
    )
    return NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", page)


def _title(record: RunRecord) -> str:
    num_machines = Counter(str(machine.role) for machine in record.machines)
    machines = " and ".join(f"{number} {role}" for role, number in num_machines.items())
    shared = f" ({packed})" if (packed := packing(record.host)) else ""
    return f"{record.model.name} on {machines} machine{'s' if len(record.machines) > 1 else ''}{shared}"


def _footer(run: ReportedRun) -> str:
    host = run.summary["host"]
    versions = ", ".join(f"{name} {version}" for name, version in host["versions"].items())
    notes = (*NOTES, f"{host['date']} on {host['platform']}, {host['num_cores']} cores; {versions}.")
    return f"<footer>{''.join(f'<p>{escape(note)}</p>' for note in notes)}</footer>"
