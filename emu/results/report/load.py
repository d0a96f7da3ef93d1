"""What came in, what went out and what was waiting, over the run's time."""

import numpy as np

from emu.results.columns import FAILED
from emu.results.report import card
from emu.results.report.quantity import count, duration
from emu.results.report.run import ReportedRun


def load_section(run: ReportedRun) -> str:
    return card.section("Load", card.charts(_request_rate(run), _token_rate(run), _phases(run)))


def _request_rate(run: ReportedRun) -> str:
    requests, timeline = run.columns.requests, run.rate_timeline
    arrived = timeline.sums(run.arrival_s) / timeline.width_s
    finished = timeline.sums(requests.end_s[run.finished]) / timeline.width_s
    figure = run.figure(max(arrived.max(), finished.max()), "requests/s")
    figure.steps(timeline.edges_s, arrived, "arrived", "blue")
    figure.steps(timeline.edges_s, finished, "finished", "orange")
    failed = requests.status == FAILED
    if failed.any():
        figure.steps(timeline.edges_s, timeline.sums(requests.end_s[failed]) / timeline.width_s, "failed", "purple")
    run.mark_events(figure)
    return card.chart("Requests arrived and finished", f"Per {run.rate_width}.", figure)


def _token_rate(run: ReportedRun) -> str:
    steps, timeline = run.columns.steps, run.rate_timeline
    prompt = timeline.sums(run.batch_end_s, run.columns.batches.prefill_tokens) / timeline.width_s
    output = timeline.sums(steps.end_s, steps.num_decodes + steps.num_prefills) / timeline.width_s
    figure = run.figure(max(prompt.max(), output.max()), "tokens/s")
    figure.steps(timeline.edges_s, prompt, "prompt tokens prefilled", "blue")
    figure.steps(timeline.edges_s, output, "output tokens", "orange")
    run.mark_events(figure)
    return card.chart("Token throughput", f"Per {run.rate_width}, at the end of their steps.", figure)


def _phases(run: ReportedRun) -> str:
    batches, transfers, timeline = run.columns.batches, run.columns.transfers, run.timeline
    layers = [
        (timeline.occupancy(batches.start_s, run.batch_end_s, batches.num_decodes), "decoding", "orange"),
        (timeline.occupancy(batches.start_s, run.batch_end_s, batches.num_paused), "paused", "grey"),
        (timeline.occupancy(transfers.ready_s, transfers.received_s), "in hand-over", "green"),
        (timeline.occupancy(batches.start_s, run.batch_end_s, batches.num_prefills), "prefilling", "blue"),
        (_waiting_prompts(run), "waiting for prefill", "yellow"),
    ]
    figure = run.figure(np.sum([heights for heights, _, _ in layers], axis=0).max(), "requests")
    figure.stack(timeline.middles_s, [layer for layer in layers if layer[0].any()])
    run.mark_events(figure)
    return card.chart("Requests by phase", "Mean number at each moment.", figure)


def queue_chart(run: ReportedRun) -> str:
    transfers, timeline = run.columns.transfers, run.timeline
    prompts = _waiting_prompts(run)
    handovers = timeline.occupancy(transfers.ready_s, transfers.pull_s)
    figure = run.figure(max(prompts.max(), handovers.max()), "requests waiting")
    figure.line(timeline.middles_s, prompts, "prompts waiting for prefill", "blue")
    if len(transfers):
        figure.line(timeline.middles_s, handovers, "hand-overs waiting for KV blocks", "green")
    run.mark_events(figure)
    peak = _peak(run.arrival_s, _prefilled_s(run))
    return card.chart(
        "Queue lengths",
        f"Mean in bins of {duration(timeline.width_s)}. Most prompts at once: {count(peak)}.",
        figure,
    )


def _waiting_prompts(run: ReportedRun) -> np.ndarray:
    return run.timeline.occupancy(run.arrival_s, _prefilled_s(run))


def _prefilled_s(run: ReportedRun) -> np.ndarray:
    """When each request stopped to wait for its first prefill step: at the step's start, or at its own end without any."""
    requests = run.columns.requests
    return np.where(np.isnan(requests.prefill_start_s), requests.end_s, requests.prefill_start_s)


def _peak(start_s: np.ndarray, end_s: np.ndarray) -> int:
    """The largest number of intervals open at once. NaN: one that never began, or never ended."""
    started_s = np.sort(start_s[~np.isnan(start_s)])
    closed = np.searchsorted(np.sort(end_s[~np.isnan(end_s)]), started_s, "right")
    return int((np.arange(1, len(started_s) + 1) - closed).max(initial=0))
