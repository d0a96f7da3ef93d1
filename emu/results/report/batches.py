"""What was waiting, and what the machines computed at once."""

import numpy as np

from emu.results.report import card
from emu.results.report.cumulative import SHARE_AXIS
from emu.results.report.curve import Curve
from emu.results.report.figure import Figure, x_scale
from emu.results.report.load import queue_chart
from emu.results.report.quantity import count, share
from emu.results.report.run import ROLES, ReportedRun
from emu.results.utilisation import batch_tokens, seconds_by_tokens


def batches_section(run: ReportedRun) -> str:
    batches = (_decode_batches(run), _prefill_batches(run), _active_tokens(run), _time_by_tokens(run))
    return card.section("Queues and batches", card.charts(queue_chart(run), *batches))


def _decode_batches(run: ReportedRun) -> str:
    batches, timeline = run.columns.batches, run.timeline
    decodes = batches.num_decodes > 0
    if not decodes.any():
        return card.empty("Decode batch size", "No machine ran a decode step.")
    start_s, end_s, num_decodes = batches.start_s[decodes], run.batch_end_s[decodes], batches.num_decodes[decodes]
    machines = timeline.occupancy(start_s, end_s)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(machines > 1e-6, timeline.occupancy(start_s, end_s, num_decodes) / machines, np.nan)
    steps = run.columns.steps
    in_step = steps.num_decodes
    largest = timeline.highest(steps.start_s[in_step > 0], in_step[in_step > 0])
    figure = run.figure(float(num_decodes.max()), "decodes in a step")
    figure.line(timeline.middles_s, largest, "largest", "grey")
    figure.line(timeline.middles_s, mean, "mean, by time", "orange")
    run.mark_events(figure)
    average = float(((end_s - start_s) * num_decodes).sum() / max(1e-12, (end_s - start_s).sum()))
    note = f"Over machines that decode. Mean {average:.1f}, largest {num_decodes.max():,}."
    return card.chart("Decode batch size", note, figure)


def _prefill_batches(run: ReportedRun) -> str:
    batches, timeline = run.columns.batches, run.rate_timeline
    prefills = batches.num_prefills > 0
    if not prefills.any():
        return card.empty("Prompt tokens a step", "No machine ran a prefill step.")
    start_s, tokens = batches.start_s[prefills], batches.prefill_tokens[prefills]
    steps = timeline.sums(start_s)
    mean = np.where(steps > 0, timeline.sums(start_s, tokens) / np.maximum(steps, 1), np.nan)
    figure = run.figure(float(tokens.max()), "prompt tokens in a step")
    figure.steps(timeline.edges_s, timeline.highest(start_s, tokens), "largest", "grey")
    figure.steps(timeline.edges_s, mean, "mean", "blue")
    run.mark_events(figure)
    note = f"Steps with prompts. Mean {tokens.mean():,.0f} tokens of {batches.num_prefills[prefills].mean():.2f} prompts."
    return card.chart("Prompt tokens a step", note, figure)


def _active_tokens(run: ReportedRun) -> str:
    batches, timeline = run.columns.batches, run.timeline
    title, tokens = "Active tokens in a step", batch_tokens(run.columns)
    if not len(tokens):
        return card.empty(title, "No machine ran a step.")
    figure = run.figure(float(tokens.max()), "prompt tokens + decodes (logarithmic)", log=True)
    for role, colour in ROLES.items():
        of_role = (run.machine_roles == role)[batches.machine]
        if of_role.any():
            times = batches.start_s[of_role], run.batch_end_s[of_role]
            machines = timeline.occupancy(*times)
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = np.where(machines > 1e-6, timeline.occupancy(*times, tokens[of_role]) / machines, np.nan)
            figure.line(timeline.middles_s, mean, f"{role} machines", colour)
    run.mark_events(figure)
    return card.chart(title, "Mean by time, over the machines in a step.", figure)


def _time_by_tokens(run: ReportedRun) -> str:
    """Figure 17 of Splitwise."""
    title, curves = "Time by active tokens", {}
    for role in ROLES:
        tokens, seconds = seconds_by_tokens(run.columns, run.machine_roles == role)
        if seconds.any():  # steps too short for the time that it was take none
            curves[role] = Curve.of(tokens.astype(float), seconds)
    if not curves:
        return card.empty(title, "No machine ran a step.")
    most = max(curve.values[-1] for curve in curves.values())
    figure = Figure(x_scale(1.0, most, log=True).rounded(), SHARE_AXIS, "prompt tokens + decodes (logarithmic)", "time (%)")
    for role, curve in curves.items():
        legend = f"{role} machines: half the time at {count(curve.quantile(0.5))} or fewer"
        figure.line(*curve.points(), f"{role} machines", ROLES[role], legend=legend)
    busy = (f"{role} {share(run.summary['utilisation']['roles'][role])}" for role in curves)
    return card.chart(title, f"Share of the time in a step at or below; in a step: {', '.join(busy)}.", figure)
