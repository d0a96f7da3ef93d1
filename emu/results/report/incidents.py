"""What went wrong on the way: deaths, restarts, failed requests. The most frequent ones, with examples."""

from collections.abc import Iterator
from html import escape
from typing import NamedTuple

import numpy as np

from emu.results.columns import FAILED
from emu.results.report import card
from emu.results.report.quantity import count
from emu.results.report.run import ReportedRun

MAX_NUM_ROWS = 25
NUM_EXAMPLES = 5


class Incident(NamedTuple):
    """Things of one kind and cause: when the first and the last happened, how many, and whom they hit."""

    first_s: float
    last_s: float
    kind: str
    cause: str
    number: int
    examples: str


def incidents_section(run: ReportedRun) -> str:
    incidents = [*_deaths(run), *_restarts(run), *_failures(run), *_unfinished(run), *_drops(run)]
    if not incidents:
        return card.section("Events of note", card.box("None", "No machine died, no request restarted or failed.", ""))
    shown = sorted(sorted(incidents, key=lambda incident: -incident.number)[:MAX_NUM_ROWS])
    rows = [
        [
            _when(run, incident),
            escape(incident.kind),
            escape(incident.cause),
            count(incident.number),
            escape(incident.examples),
        ]
        for incident in shown
    ]
    left_out = len(incidents) - len(shown)
    note = f"The most frequent; {left_out} further kinds are left out." if left_out else ""
    header = [f"time ({run.time_unit.name})", "what", "cause", "number", "which"]
    return card.section("Events of note", card.box("", note, card.table(header, rows, text_columns=(0, 1, 2, 4))))


def _when(run: ReportedRun, incident: Incident) -> str:
    first, last = run.time_unit.text(incident.first_s), run.time_unit.text(incident.last_s)
    return first if first == last else f"{first} to {last}"


def _deaths(run: ReportedRun) -> Iterator[Incident]:
    for machine in run.record.machines:
        died_s = run.death_s(machine.index)
        if died_s is not None:
            yield Incident(died_s, died_s, "machine died", "", 1, f"{machine.name} ({machine.role}, {machine.hardware.name})")


def _restarts(run: ReportedRun) -> Iterator[Incident]:
    requeues = run.columns.requeues
    for evicted, kind in ((True, "request evicted, restarted"), (False, "request restarted")):
        for cause in np.unique(requeues.cause[requeues.evicted == evicted]):
            chosen = (requeues.evicted == evicted) & (requeues.cause == cause)
            yield _incident(kind, str(cause), requeues.time_s[chosen], requeues.request_id[chosen])


def _failures(run: ReportedRun) -> Iterator[Incident]:
    requests = run.columns.requests
    failed = requests.status == FAILED
    for cause in np.unique(requests.cause[failed]):
        which = np.flatnonzero(failed & (requests.cause == cause))
        yield _incident("request failed", requests.causes[cause], requests.end_s[which], which)


def _unfinished(run: ReportedRun) -> Iterator[Incident]:
    which = np.flatnonzero((run.columns.requests.num_ends == 0) & ~np.isnan(run.arrival_s))
    if len(which):
        at_s = np.full(len(which), run.record.emulated_s)
        yield _incident("request unfinished", run.record.interrupted or "the run ended first", at_s, which)


def _drops(run: ReportedRun) -> Iterator[Incident]:
    drops = run.columns.drops
    for message in np.unique(drops.message):
        chosen = drops.message == message
        yield _incident("stale message dropped", str(message), drops.time_s[chosen], drops.request_id[chosen])


def _incident(kind: str, cause: str, times_s: np.ndarray, request_ids: np.ndarray) -> Incident:
    examples = ", ".join(map(str, request_ids[:NUM_EXAMPLES].tolist()))
    more = ", …" if len(request_ids) > NUM_EXAMPLES else ""
    return Incident(float(times_s.min()), float(times_s.max()), kind, cause, len(times_s), f"request {examples}{more}")
