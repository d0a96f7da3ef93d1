"""The top of the page: whether to trust the run, what was run, and what came out in a few numbers."""

from collections import Counter
from html import escape

from emu.results.report import card
from emu.results.report.latency import latency_table
from emu.results.report.quantity import SECONDS, count, size
from emu.results.report.run import ReportedRun

VERDICTS = {
    "VALID": ("good", "Every check of the run passed: its figures can be used as they stand."),
    "DEGRADED": ("warn", "A check is past its limit, though not by far: use the figures with the reasons below in mind."),
    "ILLUSTRATIVE": (
        "warn",
        "Its timing is no measurement: the figures named below show how the cluster behaves, and predict nothing.",
    ),
    "INVALID": ("bad", "These figures must not be used, for the reasons below."),
}
SATURATED = (
    "The emulated cluster was saturated: at the last arrival its waiting work was large and still growing, so the latencies "
    "depend on how long the load lasted."
)


def verdict_banner(run: ReportedRun) -> str:
    summary, interrupted = run.summary, run.record.interrupted
    tone, meaning = VERDICTS[summary["verdict"]]
    badges = _badge("warn", "SATURATED") if summary["saturated"] else ""
    badges += _badge("bad", "INTERRUPTED") if interrupted else ""
    lines = [meaning]
    lines += [SATURATED] if summary["saturated"] else []
    lines += [f"The run was interrupted ({interrupted}): only what happened until then is counted."] if interrupted else []
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in summary["verdict_reasons"])
    return (
        f'<section class="verdict {tone}"><h2>{escape(summary["verdict"])}</h2>{badges}'
        f"{''.join(f'<p>{escape(line)}</p>' for line in lines)}{f'<ul>{reasons}</ul>' if reasons else ''}</section>"
    )


def _badge(tone: str, text: str) -> str:
    return f'<span class="badge {tone}">{text}</span>'


def figures(run: ReportedRun) -> str:
    """Requests, tokens, throughput, hand-overs and time in large print."""
    summary = run.summary
    requests, tokens, kv, host = summary["requests"], summary["tokens"], summary["kv"], summary["host"]
    extrapolated = summary["timing"]["extrapolated_steps"]
    unfinished = requests["submitted"] - requests["finished"] - requests["failed"]
    tiles = [
        (
            count(requests["finished"]),
            "requests finished",
            f"of {count(requests['submitted'])}; {count(requests['failed'])} failed"
            + (f", {count(unfinished)} unfinished" if unfinished else ""),
        ),
        (
            _rate(summary["completed_rps"]),
            "requests/s completed",
            f"{_rate(summary['offered_rps'])} requests/s offered",
        ),
        (
            count(tokens["output"]),
            "output tokens",
            f"{count(tokens['prompt'])} prompt tokens, {count(tokens['recomputed'])} recomputed",
        ),
        (
            size(kv["bytes_modelled"]),
            "KV handed over",
            f"{count(kv['transfers'])} transfers, {size(kv['bytes_moved'])} really moved",
        ),
        (
            count(summary["paused"]),
            "pauses of decodes",
            f"{count(summary['evicted'])} evicted; {count(extrapolated)} of {count(len(run.columns.steps))} steps extrapolated",
        ),
        (
            f"{SECONDS.text(summary['emulated_s'])} s",
            "emulated",
            f"in {SECONDS.text(host.get('wall_s'))} s of wall time; {count(summary['events'])} events",
        ),
    ]
    boxes = (
        f'<div class="tile"><b>{escape(value)}</b>{escape(what)}<span>{escape(more)}</span></div>'
        for value, what, more in tiles
    )
    return f'<div class="tiles">{"".join(boxes)}</div>'


def _rate(per_s: float | None) -> str:
    return "–" if per_s is None else f"{per_s:,.2f}"


def settings_and_latency(run: ReportedRun) -> str:
    return f'<div class="columns">{_settings(run)}{latency_table(run)}</div>'


def _settings(run: ReportedRun) -> str:
    record = run.record
    kinds = Counter(f"{machine.role} {machine.hardware.name}" for machine in record.machines)
    machines = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    facts = {"model": record.model.name, "machines": machines, "runtime": record.runtime, "seed": str(record.seed)}
    if record.real:
        facts["real machines"] = ", ".join(record.machines[index].name for index in record.real)
    if record.fidelity is not None:
        facts["dilation"] = f"{record.fidelity.dilation:g}"
    if record.kv.payload_scale:
        facts["payload scale"] = f"{record.kv.payload_scale:.4g}"
    return card.box("What was run", "", card.facts(facts | dict(run.settings), run.overrides))
