"""Where a report comes from, which files go with it, what limits the cluster, and what failed."""

from collections.abc import Mapping
from html import escape
from typing import Any

from emu.results.report import card
from emu.results.report.quantity import NONE, SECONDS, count, share
from emu.results.report.run import ReportedRun

FILES = ("summary.json", "requests.parquet")
POOLS = {"prefill": "prompt machines", "decode": "token machines", "mixed": "mixed machines"}
PACKAGES = ("emu", "emu-serving")
FULL = 0.95  # of its time in a step: a machine that has little left
NEAR = 0.8


def origin(run: ReportedRun) -> str:
    """One box: command, version, host, date, load, timing, and links to the files beside the page."""
    host = run.summary["host"]
    facts = {
        "command": run.command,
        "version": ", ".join(f"{name} {host['versions'][name]}" for name in PACKAGES if name in host["versions"]),
        "host": f"{host['platform']}, {host['num_cores']} cores",
        "date": host["date"],
        "load": load_text(run.summary.get("workload", {})),
        "timing": timing_text(run.summary["timing"]),
    }
    links = ", ".join(f'<a href="{name}">{name}</a>' for name in FILES)
    content = card.facts({name: text for name, text in facts.items() if text})
    return card.box("", "", f'{content}<p class="note">Files beside this page: {links}.</p>', wide=True)


def load_text(workload: Mapping[str, Any]) -> str:
    """The trace and the window of it that was run, or a synthetic load's name; '' where the summary has none."""
    if not workload.get("path"):
        return str(workload.get("name", ""))
    start_s, duration_s = workload.get("start_s") or 0.0, workload.get("duration_s")
    span_s = workload.get("file_span_s")
    end = SECONDS.text(min(start_s + duration_s, span_s or float("inf"))) if duration_s is not None else NONE
    text = f"{workload['path']}: {count(workload.get('requests'))} of {count(workload.get('requests_in_file'))} requests"
    text += f", {SECONDS.text(start_s)} to {end} s of {SECONDS.text(span_s)} s"
    unused = workload.get("unused_columns")
    return text + (f"; columns not used: {', '.join(map(str, unused))}" if unused else "")


def timing_text(timing: Mapping[str, Any]) -> str:
    """Name, source, date and error of the timing, as far as they are known."""
    parts = [str(timing["name"])] if timing.get("name") else []
    parts += [f"{key}: {timing[key]}" for key in ("source", "date", "error") if timing.get(key)]
    return "; ".join(parts)


def bottleneck(run: ReportedRun) -> str:
    """One sentence on what limits the cluster, from the busy shares of its machines."""
    machines, busy = run.record.machines, run.summary["utilisation"]["machines"]
    roles: dict[str, list[float]] = {}
    for machine in machines:
        if busy.get(machine.name) is not None:
            roles.setdefault(str(machine.role), []).append(busy[machine.name])
    sentence = bottleneck_text(roles)
    return f'<p class="note wide">{escape(sentence)}</p>' if sentence else ""


def bottleneck_text(roles: Mapping[str, list[float]]) -> str:
    """Such as 'Token machines limit the cluster: token machines 100 % busy, prompt machines 2 to 23 %.'"""
    if not roles:
        return ""
    busiest = sorted(roles, key=lambda role: -sum(roles[role]) / len(roles[role]))
    told = "; ".join(f"{POOLS.get(role, role)} {_span(roles[role])} busy" for role in busiest)
    most = max(roles[busiest[0]])
    mean = sum(roles[busiest[0]]) / len(roles[busiest[0]])
    first = POOLS.get(busiest[0], busiest[0])
    if mean >= FULL:
        return f"The {first} limit the cluster: {told}."
    if mean >= NEAR:
        return f"The {first} are nearest to their limit: {told}."
    if most >= FULL:
        return f"Some {first} are at their limit, not all: {told}."
    return f"No role is at its limit: {told}."


def _span(busy: list[float]) -> str:
    low, high = share(min(busy)), share(max(busy))
    return high if low == high else f"{low} to {high}"


def failures(run: ReportedRun) -> str:
    """The causes of failed requests, and faults that had no effect; '' where there are none."""
    failed, faults = run.summary.get("failures", []), run.summary.get("faults_without_effect", [])
    boxes = []
    if failed:
        rows = [[escape(of["cause"]), count(of["count"]), count(of["first_request"])] for of in failed]
        boxes.append(card.box("Failed requests", "", card.table(["cause", "requests", "first request"], rows), wide=True))
    if faults:
        rows = [[escape(str(of["machine"])), f"{of['at_s']:g}", escape(of["why"])] for of in faults]
        table = card.table(["machine", "at (s)", "why"], rows, text_columns=(0, 2))
        boxes.append(card.box("Faults without effect", "", table, wide=True))
    return "".join(boxes)
