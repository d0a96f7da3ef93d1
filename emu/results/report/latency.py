"""How long requests and tokens took: a table of percentiles and three distributions."""

from emu.results.distribution import p99_name
from emu.results.report import card
from emu.results.report.cumulative import cumulative_chart
from emu.results.report.curve import Curve
from emu.results.report.quantity import SECONDS, TimeUnit, count, unit_of
from emu.results.report.run import ReportedRun

METRICS = (
    ("TTFT", "arrival to first token", "ttft_s"),
    ("TBT", "every gap between two tokens of a request", "tbt_s"),
    ("TPOT", "(last − first token) / (tokens − 1) of a request", "tpot_s"),
    ("E2E", "arrival to last token", "e2e_s"),
    ("Queue", "arrival to start of prefill", "queue_s"),
    ("Second token gap", "second − first token: holds the hand-over", "second_token_gap_s"),
    ("Decode start gap", "first decode step − first token", "decode_start_gap_s"),
)
STATISTICS = ("mean", "p50", "p90", "p99", "max")


def latency_table(run: ReportedRun) -> str:
    rows = []
    for name, meaning, key in METRICS:
        statistics = run.summary[key]
        unit = unit_of(statistics["p50"])
        numbers = [f"{unit.text(statistics[name])}{_ends(run, key, name, unit)}" for name in STATISTICS]
        rows.append([f"{name}<small>{meaning}</small>", *numbers, unit.name])
    names = [p99_name(int(run.measured.sum())) if name == "p99" else name for name in STATISTICS]
    content = card.table(["", *names, "unit"], rows)
    warmup = f" that arrived after the first {SECONDS.text(run.warmup_s)} s" if run.warmup_s else ""
    note = f"Finished requests{warmup}: {count(int(run.measured.sum()))}. Percentiles by linear interpolation."
    return card.box("Latency", note + _meaning_of_ends(run), content)


def _ends(run: ReportedRun, metric: str, statistic: str, unit: TimeUnit) -> str:
    ends = run.summary.get("interval", {}).get(metric, {}).get(statistic)
    return f"<small>{unit.text(ends['low'])} to {unit.text(ends['high'])}</small>" if ends else ""


def _meaning_of_ends(run: ReportedRun) -> str:
    if "interval" not in run.summary:
        return ""
    if run.summary["interval"]["contains_run"]:
        return " Below: the interval, were every step off by the error that its timing states."
    return " Below: the interval that the timing predicts, were every step off by its stated error; all machines were real."


def latency_section(run: ReportedRun) -> str:
    requests, measured, summary = run.columns.requests, run.measured, run.summary
    ttft = Curve.of(requests.ttft_s[measured])
    tbt = Curve.of(*run.columns.tokens.gaps(measured))
    e2e = Curve.of(requests.e2e_s[measured])
    num_requests = int(measured.sum())
    return card.section(
        "Latency",
        card.charts(
            cumulative_chart("TTFT", "Arrival to first token.", ttft, "blue", summary["ttft_s"], num_requests),
            cumulative_chart(
                "TBT", "Every gap between two tokens of a request.", tbt, "orange", summary["tbt_s"], num_requests
            ),
            cumulative_chart("E2E", "Arrival to last token.", e2e, "purple", summary["e2e_s"], num_requests),
        ),
    )
