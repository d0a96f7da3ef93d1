"""The summary as a table on the terminal."""

from collections.abc import Iterator
from typing import Any, TextIO

from emu.results.distribution import p99_name
from emu.results.failures import failure_text
from emu.results.run_record import packing
from emu.results.speed import speed_text

LATENCIES = {
    "ttft_s": "TTFT",
    "tbt_s": "TBT",
    "tpot_s": "TPOT",
    "e2e_s": "E2E",
    "queue_s": "queue",
    "second_token_gap_s": "first to second token",
}
STATISTICS = ("mean", "p50", "p90", "p99", "max")
WAYS = {"mean TBT": "met_by_mean", "every gap": "met_by_every_gap"}
HOST_SPAN = "host: this host's time beyond the model (transfer.payload_scale < 1); all other spans are the model's"
STYLES = {"VALID": "bold green", "ILLUSTRATIVE": "bold cyan", "DEGRADED": "bold yellow", "INVALID": "bold red"}


def print_summary(summary: dict[str, Any], file: TextIO | None = None) -> None:
    """Print the verdict and the main figures of `summary` to `file` (standard output), without colour where it is no
    terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=file, highlight=False, soft_wrap=True)
    headline = Text(summary["verdict"], style=STYLES[summary["verdict"]])
    if summary["saturated"]:
        headline.append(" SATURATED", style="bold yellow")
    console.print(headline)
    for reason in summary["verdict_reasons"]:
        console.print(Text(f"  {reason}"))
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    table.add_column("ms")
    for name in STATISTICS:
        table.add_column(p99_name(summary["measured_requests"]) if name == "p99" else name, justify="right")
    for row in _rows(summary):
        table.add_row(*row)
    console.print(table)
    for line in _lines(summary):
        console.print(line, markup=False)


def _rows(summary: dict[str, Any]) -> Iterator[list[str]]:
    """The cells of the table: a row a latency, and where it has an interval the ends of that below."""
    interval = summary.get("interval", {})
    predicted = "" if interval.get("contains_run", True) else "predicted "
    for key, name in LATENCIES.items():
        yield [name, *(_milliseconds(summary[key][statistic]) for statistic in STATISTICS)]
        if key in interval:
            ends = [interval[key].get(statistic) or {} for statistic in STATISTICS]
            for end, word in (("low", "from"), ("high", "to")):
                yield [f"  {predicted}{word}", *("" if end not in of else _milliseconds(of[end]) for of in ends)]


def _milliseconds(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s * 1e3:,.1f}"


def _lines(summary: dict[str, Any]) -> Iterator[str]:
    requests, tokens, kv, timing = (summary[key] for key in ("requests", "tokens", "kv", "timing"))
    if shared := packing(summary["host"]):
        yield f"packed    {shared}"
    rates = ((summary["offered_rps"], "offered"), (summary["completed_rps"], "completed"))
    rate = "".join(f", {rps:.2f}/s {name}" for rps, name in rates if rps is not None)
    yield f"requests  {requests['finished']} of {requests['submitted']} finished, {requests['failed']} failed{rate}"
    if requests["skipped"]:
        yield f"skipped   {requests['skipped']:,} requests that fit no machine (workload.skip_impossible=true)"
    for number, group in enumerate(summary["failures"]):
        yield f"{'' if number else 'failed':<9} {failure_text(group)}"
    yield f"tokens    {tokens['prompt']:,} prompt, {tokens['output']:,} output, {tokens['recomputed']:,} recomputed"
    moved = "none moved"
    if kv["payload_scale"]:
        moved = f"{kv['bytes_moved'] / 1e9:,.2f} GB moved, {kv['verified']:,} verified, {kv['corrupt']:,} corrupt"
    yield f"KV cache  {kv['transfers']:,} transfers, {kv['bytes_modelled'] / 1e9:,.1f} GB modelled, {moved}"
    if kv["overruns"]:
        late = summary["overrun_s"]
        yield (
            f"          {kv['overruns']:,} of {kv['verified']:,} ({kv['overruns'] / kv['verified']:.0%}) later than modelled: "
            f"by {late['p50'] * 1e3:,.2f} ms at p50, {late['p99'] * 1e3:,.2f} ms at p99"
        )
    yield from _handover(summary["handover"])
    yield f"steps     {timing['steps']:,}, {timing['extrapolated_steps']:,} of them outside the profiled range"
    if "shadow" in summary:
        yield f"shadow    {_shadow(summary['shadow'])}"
        yield f"speed     {speed_text(summary['speed'])}"
    yield f"SLOs      {_objectives(summary['slo'])}"
    yield f"cost      {_cost(summary)}"
    if summary["paused"] or summary["evicted"]:
        yield f"blocks    {summary['paused']:,} pauses, {summary['evicted']:,} evictions"
    if summary["machines_died"]:
        yield f"died      {', '.join(summary['machines_died'])}"
    for fault in summary["faults_without_effect"]:
        yield f"no effect the death of {fault['machine']} at {fault['at_s']:g} s: {fault['why']}"
    if summary["restarted"]:
        yield f"restarts  {summary['restarted']:,} of requests whose machine or KV transfer was lost"
    for kind, late in summary["late"].items():
        if late["count"]:
            yield (
                f"{kind:<9} {late['count']:,}; after their due time by "
                + ", ".join(f"{late[name] * 1e3:.2f} ms ({name})" for name in ("p50", "p90", "p99", "max"))
            )
    yield f"time      {summary['emulated_s']:,.1f} s emulated in {summary['host']['wall_s']:,.2f} s"


def _handover(handover: dict[str, Any]) -> Iterator[str]:
    """Where the mean gap between first and second token goes, longest span first; and what the plans have in it."""
    if not handover["requests"]:
        return
    share = handover["share"]
    spans = (f"{name} {share[name]:.0%}" for name in sorted(share, key=share.__getitem__, reverse=True) if share[name] >= 0.005)
    mean_ms = handover["gap_s"]["mean"] * 1e3
    yield f"hand-over {handover['requests']:,} requests, {mean_ms:,.1f} ms to the second token: {', '.join(spans)}"
    if len(handover["plan"]) > 1:
        plans = (
            f"{plan} {of['gap_s']['mean'] * 1e3:,.1f} ms, wire {of['span_s']['wire']['mean'] * 1e3:,.2f} ms"
            for plan, of in handover["plan"].items()
        )
        yield f"          {'; '.join(plans)}"
    if "payload" in handover:
        wire_ms, link_ms = (handover["payload"][key]["mean"] * 1e3 for key in ("wire_s", "link_s"))
        yield f"          a KV cache was really on the wire for {wire_ms:,.2f} ms, and by the model {link_ms:,.2f} ms"
        if handover["share"]["host"]:
            yield f"          {HOST_SPAN}"


def _shadow(shadow: dict[str, Any]) -> str:
    """How long the steps of each real machine took over what its timing model says, at the median; and the worst window."""
    ratios = (
        f"{machine} no steps" if of["ratio"]["all"] is None else f"{machine} {of['ratio']['all']:.2f} x"
        for machine, of in shadow.items()
    )
    windows = {machine: of["worst_window"] for machine, of in shadow.items() if of["worst_window"]["drift"] is not None}
    worst = max(windows, key=lambda machine: abs(windows[machine]["drift"]), default=None)
    at_worst = ""
    if worst is not None:
        at_worst = f"; at worst {1 + windows[worst]['drift']:.2f} x in {windows[worst]['num_steps']} steps of {worst}"
    return f"{', '.join(ratios)} as long as predicted{at_worst}"


def _objectives(slo: dict[str, Any]) -> str:
    if slo["met"] is None:
        return f"not judged: {slo['reason']}"
    verdicts = (f"{'met' if slo[key] else 'missed'} by {way}" for way, key in WAYS.items())
    margins = {
        f"{metric.upper()} {statistic}": level["margin"]
        for metric, levels in slo["limits"].items()
        for statistic, level in levels.items()
        if level["margin"] is not None
    }
    least = min(margins, key=margins.__getitem__, default=None)
    parts = [", ".join(verdicts)]
    parts += [f"{slo['unfinished']:,} of {slo['judged']:,} requests unfinished"] if slo["unfinished"] else []
    parts += [f"least margin {margins[least]:+.0%} ({least})"] if least else []
    parts += [f"{slo['share_within_p99']:.1%} of requests within all p99 limits"] if slo["judged"] else []
    return "; ".join(parts)


def _cost(summary: dict[str, Any]) -> str:
    cost, energy = summary["cost"], summary["energy"]
    amounts = ((cost["machine_hours"], "{:,.3g} machine-hours"), (cost["dollars"], "${:,.2f}"), (energy["kwh"], "{:,.3g} kWh"))
    total, per_million = (
        ", ".join(text.format(amount[key]) for amount, text in amounts if amount[key] is not None)
        for key in ("total", "per_million_output_tokens")
    )
    return f"{total} (power={energy['method']})" + (f"; {per_million} a million output tokens" if per_million else "")
