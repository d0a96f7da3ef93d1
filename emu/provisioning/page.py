"""The page of a search: what was found, the Pareto front of the sizes, and a heat map of each design's sizes."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from operator import attrgetter
from typing import Any

import numpy as np

from emu.build import compose, plain
from emu.provisioning import heat_map
from emu.provisioning.design import Size
from emu.provisioning.ledger import Key
from emu.provisioning.probe import Probe
from emu.provisioning.question import THROUGHPUT
from emu.provisioning.search import Answer, Question
from emu.results.report import card
from emu.results.report.figure import BOTTOM, TOP, Figure, x_scale
from emu.results.report.page import document
from emu.results.report.quantity import NONE, count, significant
from emu.results.report.scale import Scale
from emu.results.report.sweep import COLOURS

COST, POWER, RATE = "machines ($/h)", "rated power (x DGX-A100)", "requests/s"
LINE, BEST = "; the line joins those that no other betters.", "; no line: one betters all others."
MAX_NUM_LABELLED = 12  # points: of more only those on the front have their size beside them
BLANK = (
    "Blank cells were not run: the search takes it that a machine more never hurts, and that the border between what carries "
    "and what does not bends one way only; see emu/provisioning."
)


def render(question: Question, probes: Mapping[Key, Probe], answers: Sequence[Answer], best: Sequence[Answer]) -> str:
    """The page for the runs of a search and what it found, `best` over all designs."""
    title = f"Provisioning: {question}"
    notes = (*illustrations(probes.values()), *_notes(question))
    sections = [
        f'<header><h1>{escape(title)}</h1><p class="subtitle">{escape(_subtitle(question, probes))}</p></header>',
        card.section("What was found", card.box("", "", _table(answers, best))),
        card.section("What was asked", card.box("", "", card.facts(_asked(question)))),
        card.section("Pareto front", card.charts(*_pareto(question, probes))),
        card.section("Sizes that were run", *_heat_maps(question, probes, answers)),
        f"<footer>{''.join(f'<p>{escape(note)}</p>' for note in notes)}</footer>",
    ]
    return document(title, sections, heat_map.CSS + ".best { font-weight: 700; color: var(--good); }")


def illustrations(probes: Iterable[Probe]) -> list[str]:
    """The lines that say why figures are illustrative, each once."""
    return [line for line in dict.fromkeys(probe.illustrative for probe in probes) if line]


def _notes(question: Question) -> tuple[str, ...]:
    seeds, margin = question.demand.seeds, question.demand.margin
    room = f" with {100 * margin:g} % of room" if margin else ""
    of_seeds = "All sizes serve the same requests at a rate: those of one seed."
    if len(seeds) > 1:
        of_seeds = (
            f"All sizes serve the same requests at a rate: those of each of {len(seeds)} seeds ({_listed(seeds)}), up to the "
            "first with which a size does not carry it. Figures are of that seed, else of the one with the least room."
        )
    return (
        f"A size carries a rate if its run meets all nine SLOs{room}, is neither INVALID nor SATURATED, and no request failed"
        f"{', with every seed' if len(seeds) > 1 else ''}. Room: limit over value less one, of the SLO that has the least; "
        "negative where it is missed.",
        f"{of_seeds} {BLANK}",
    )


def _listed(seeds: Sequence[int]) -> str:
    return f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])


def _subtitle(question: Question, probes: Mapping[Key, Probe]) -> str:
    further = " ".join(question.designs[0].further)
    return f"within the SLOs and at most {question.caps}; {len(probes)} runs; {further}"


def _asked(question: Question) -> dict[str, str]:
    """Model, timing, seeds and margin by name, as the configuration of the first design has them."""
    design = question.designs[0]
    config = plain(compose(design.overrides(design.smallest)))
    seeds: Sequence[Any] = question.demand.seeds or (config.get("seed"),)
    timing = config.get("timing", {})
    facts = {
        "model": config.get("model", {}).get("name"),
        "timing": timing.get("name") or str(timing.get("_target_", "")).rpartition(".")[2],
        "timing's source": timing.get("source"),
        "seeds": _listed(seeds),
        "margin": f"{100 * question.demand.margin:g} %" if question.demand.margin else "none asked for",
        "caps": question.caps,
        "further": " ".join(design.further),
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _table(answers: Sequence[Answer], best: Sequence[Answer]) -> str:
    rows = []
    for answer in answers:
        name = escape(answer.design.name) + (" <small>compared</small>" if answer.is_compared else "")
        if answer.best is None:
            rows.append([name, "none", *[NONE] * 4, significant(answer.rate_rps), *[NONE] * 4])
            continue
        size, probe = answer.best.size, answer.best.probe
        text = f'<span class="best">{size}</span>' if answer in best else str(size)
        mean_power_kw = None if probe.mean_power_w is None else probe.mean_power_w / 1e3
        cells = (probe.dollars_per_hour, probe.relative_power, mean_power_kw)
        rates = (probe.rate_rps, probe.offered_rps, probe.completed_rps)
        figures = (count(probe.num_machines), *map(significant, (*cells, *rates)), escape(probe.tightest) or NONE)
        rows.append([name, text, *figures, escape(", ".join(probe.reasons)) or "yes"])
    header = ["design", "size", "machines", "$/h", "x DGX-A100", "kW", RATE, "offered/s", "completed/s"]
    return card.table([*header, "tightest SLO", "carries it"], rows, text_columns=(0, 1, 9, 10))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (what it takes, what it yields) those where no other takes no more and yields more, by what they take."""
    front: list[tuple[float, float]] = []
    for takes, yields in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or yields > front[-1][1]:
            front.append((takes, yields))
    return front


def _pareto(question: Question, probes: Mapping[Key, Probe]) -> list[str]:
    named = {design.name: design for design in question.designs}
    met = {key: run for key, run in probes.items() if run.met and question.caps.allow(named[key.design], key.size)}
    if not met:
        return [card.empty("", "No size within the caps carried its rate.")]
    of_sizes = {(key.design, key.size): key for key in sorted(met, key=attrgetter("rate_rps"))}  # at the highest rate
    points = {key: (met[key].dollars_per_hour, met[key].relative_power, met[key].rate_rps) for key in of_sizes.values()}
    if len(question.rates_rps) == 1 and question.objective != THROUGHPUT:
        note = f"Every size that carries {question.rates_rps[0]:g} requests/s"
        return [_chart("Power against cost", note, question, points, (0, 1), (COST, POWER), lower_is_better=True)]
    note = "Every size at the highest rate that it carried"
    return [
        _chart("Throughput against cost", note, question, points, (0, 2), (COST, RATE)),
        _chart("Throughput against power", note, question, points, (1, 2), (POWER, RATE)),
    ]


def _chart(
    title: str,
    note: str,
    question: Question,
    points: Mapping[Key, tuple[float, float, float]],
    axes: tuple[int, int],
    labels: tuple[str, str],
    lower_is_better: bool = False,
) -> str:
    x, y = (np.array([point[axis] for point in points.values()]) for axis in axes)
    figure = Figure(
        x_scale(0.95 * float(x.min()), 1.05 * float(x.max())),
        Scale(0.9 * float(y.min()), 1.1 * float(y.max()), BOTTOM, TOP).rounded(),
        *labels,
    )
    sign = -1 if lower_is_better else 1
    front = np.array(pareto_front([(a, sign * b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]))
    if len(front) > 1:  # one point has no line, and so no legend
        figure.line(front[:, 0], sign * front[:, 1], "Pareto front", "muted")
    on_front = set(map(tuple, front.tolist()))
    for index, design in enumerate(question.designs):
        of_design = dict.fromkeys((points[key][axes[0]], points[key][axes[1]]) for key in points if key.design == design.name)
        for number, (a, b) in enumerate(of_design):
            figure.marker(a, b, "circle", COLOURS[index % len(COLOURS)], "" if number else design.name)
    sizes: dict[tuple[float, float], list[str]] = {}  # designs can meet in a point
    for key, point in points.items():
        sizes.setdefault((point[axes[0]], point[axes[1]]), []).append(str(key.size))
    for (a, b), named in sizes.items():
        if (a, sign * b) in on_front or len(points) <= MAX_NUM_LABELLED:
            figure.label(a, b, ", ".join(dict.fromkeys(named)))
    return card.chart(title, f"{note}{LINE if len(front) > 1 else BEST}", figure)


def _heat_maps(question: Question, probes: Mapping[Key, Probe], answers: Sequence[Answer]) -> list[str]:
    return [_heat_map(question, probes, answers, answer) for answer in answers if not answer.is_compared]


def _heat_map(question: Question, probes: Mapping[Key, Probe], answers: Sequence[Answer], answer: Answer) -> str:
    """That of one search: at its rate the room of each size, or the highest rate that each size carried."""
    design, rate_rps = answer.design, answer.rate_rps
    runs: dict[Size, Probe] = {}
    for key in sorted(key for key in probes if key.design == design.name and rate_rps in (None, key.rate_rps)):
        if key.size not in runs or probes[key].met:  # by rate: the highest that was met, else the lowest that was run
            runs[key.size] = probes[key]
    others = {a.best.size for a in answers if a.is_compared and a.best and (a.design, a.rate_rps) == (design, rate_rps)}
    highest = max((probe.rate_rps for probe in runs.values() if probe.met), default=1.0)

    def is_allowed(size: Size) -> bool:
        return question.caps.allow(design, size)

    def rate_cell(probe: Probe) -> tuple[str, float]:
        rate = significant(probe.rate_rps)
        return (rate, probe.rate_rps / highest) if probe.met else (f"< {rate}", 0.5)

    cell = rate_cell if rate_rps is None else heat_map.margin_cell
    what = (
        "highest requests/s carried" if rate_rps is None else f"room of the tightest SLO at {rate_rps:g} requests/s, in percent"
    )
    found = None if answer.best is None else answer.best.size
    marks = [f"found: {found or 'none'}", *(f"compared (dashed): {size}" for size in sorted(others))]
    note = f"Each cell: {what}. Green carries it, red does not; pale is beyond the caps. {'; '.join(marks)}."
    content = heat_map.heat_map(runs, found, others, cell, is_allowed, design.is_split) if runs else ""
    return card.box(design.name, note, content, wide=True)
