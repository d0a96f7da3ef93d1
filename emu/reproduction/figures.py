"""The charts of the page: goodput of each design with its price, slowdowns against the rate, and active tokens."""

from collections.abc import Sequence
from html import escape

import numpy as np

from emu.reproduction.active_tokens import BASELINE, HIGH_RPS, LOW_RPS, SPLIT
from emu.reproduction.lab import CALIBRATED, COMPATIBLE, DESIGNS, WORKLOADS, ClusterCapacity, Lab, PaperCluster
from emu.reproduction.outcome import TOKENS
from emu.results.report import card
from emu.results.report.cumulative import SHARE_AXIS
from emu.results.report.figure import BOTTOM, TOP, Figure, x_scale
from emu.results.report.scale import Scale

COLOURS = dict(zip(DESIGNS, ("grey", "blue", "orange", "green", "purple", "yellow"), strict=True))
METRICS = (("TTFT", "ttft"), ("TBT", "tbt"), ("E2E", "e2e"))
STATISTICS = ("p50", "p90", "p99")
LIMITS = {"ttft": (2.0, 3.0, 6.0), "tbt": (1.25, 1.5, 5.0), "e2e": (1.25, 1.5, 5.0)}
CAPS = (("iso_power", "conv"), ("iso_power", "code"), ("iso_cost", "conv"))
CAP_NAMES = {"iso_power": "the power of 40 DGX-H100", "iso_cost": "the price of 40 DGX-H100"}


def shown_capacities() -> list[tuple[PaperCluster, str]]:
    """What the charts show beyond what the claims measure."""
    return [
        (PaperCluster(design, cap, workload), mode)
        for cap, workload in CAPS
        for design in DESIGNS
        for mode in (COMPATIBLE, CALIBRATED)
    ]


def goodput_tables(lab: Lab) -> str:
    return "".join(_goodput_table(lab, cap, workload) for cap, workload in CAPS)


def _goodput_table(lab: Lab, cap: str, workload: str) -> str:
    rows = []
    for design in DESIGNS:
        cluster = PaperCluster(design, cap, workload)
        by_mode = {mode: lab.capacity(cluster, mode) for mode in (COMPATIBLE, CALIBRATED)}
        probe = by_mode[COMPATIBLE].grid[0].probe
        cells = [
            f"{rate(capacity.goodput_rps)}<small>{escape(_first_reason(capacity))}</small>" for capacity in by_mode.values()
        ]
        rows.append(
            [
                f"{escape(DESIGNS[design])}<small>{cluster.size}</small>",
                *cells,
                rate(by_mode[COMPATIBLE].published_rps),
                f"{probe.dollars_per_hour:,.0f}",
                f"{probe.relative_power:.1f}",
                str(probe.num_machines),
            ]
        )
    header = ["", COMPATIBLE, CALIBRATED, "as published", "$/h", "power", "machines"]
    title = f"{WORKLOADS[workload].capitalize()}, at {CAP_NAMES[cap]}"
    note = "Goodput in requests/s offered and what is missed just above it. Power: DGX-A100 = 1."
    return card.box(title, note, card.table(header, rows), wide=True)


def _first_reason(capacity: ClusterCapacity) -> str:
    beyond = capacity.goodput.beyond
    return beyond.reasons[0].replace("_", " ") if beyond is not None else "no limit found"


def rate(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def slowdown_charts(lab: Lab, workload: str, mode: str) -> str:
    """Figure 16 of the paper: nine charts, a line a design, objectives dashed."""
    capacities = {design: lab.capacity(PaperCluster(design, "iso_power", workload), mode) for design in DESIGNS}
    return card.charts(
        *(
            _slowdown_chart(f"{name} slowdown {statistic}", f"{metric}_{statistic}", limit, capacities)
            for name, metric in METRICS
            for statistic, limit in zip(STATISTICS, LIMITS[metric], strict=True)
        )
    )


def _slowdown_chart(title: str, slo: str, limit: float, capacities: dict[str, ClusterCapacity]) -> str:
    rates = [outcome.probe.rate_rps for capacity in capacities.values() for outcome in capacity.grid]
    x = x_scale(min(rates), max(rates) * (1 + 1e-9)).rounded()
    figure = Figure(x, Scale(0.0, 2 * limit, BOTTOM, TOP), "load (requests/s offered)", "times a lone DGX-A100")
    for design, capacity in capacities.items():
        loads, values = slowdowns(capacity, slo, limit)
        figure.line(loads, values, DESIGNS[design], COLOURS[design])
    figure.line(np.array([min(rates), max(rates)]), np.array([limit, limit]), f"objective: {limit:g}", "slo")
    return card.chart(title, "", figure)


def slowdowns(capacity: ClusterCapacity, slo: str, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Rates and slowdowns (float64) of one SLO, from its margins; NaN where nothing was measured."""
    margins = [outcome.probe.margins[slo] for outcome in capacity.grid]
    values = [float("nan") if margin is None else limit / (1 + margin) for margin in margins]
    return np.array([outcome.probe.rate_rps for outcome in capacity.grid]), np.array(values)


def active_token_charts(lab: Lab) -> str:
    """Figure 17 of the paper."""
    return card.charts(
        *(_active_tokens(lab, mode, rate_rps) for mode in (COMPATIBLE, CALIBRATED) for rate_rps in (LOW_RPS, HIGH_RPS))
    )


def _active_tokens(lab: Lab, mode: str, rate_rps: float) -> str:
    x = x_scale(1.0, TOKENS[-1], log=True).rounded()
    figure = Figure(x, SHARE_AXIS, "prompt tokens + decodes (logarithmic)", "time (%)")
    tokens = np.maximum(np.array(TOKENS, float), 1.0)
    lines: Sequence[tuple[PaperCluster, str, str, str]] = (
        (BASELINE, "mixed", "Baseline-H100", "blue"),
        (SPLIT, "prefill", "Splitwise-HH, prompt machines", "green"),
        (SPLIT, "decode", "Splitwise-HH, token machines", "orange"),
    )
    for cluster, role, name, colour in lines:
        shares = np.array(lab.outcome(cluster, mode, rate_rps).time_at_or_below[role])
        figure.line(tokens[1:], shares[1:], name, colour, legend=f"{name}: idle {100 * shares[0]:.0f} %")
    return card.chart(
        f"{rate_rps:g} requests/s offered, {mode}", "Share of all machine time with at most this many tokens active.", figure
    )
