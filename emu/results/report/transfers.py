"""The page of a transfer benchmark: GB/s and latency by size, a line a transport, and what plain calls and a copy reach."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from emu.results.report import card
from emu.results.report.figure import BOTTOM, TOP, Figure, x_scale
from emu.results.report.page import document
from emu.results.report.quantity import NONE, binary_size, duration
from emu.results.report.scale import Scale
from emu.results.report.sweep import COLOURS

Row = Mapping[str, Any]
CSS = ".dashed.line { stroke-dasharray: 3 3; } .legend i.dashed { border-top-style: dashed; }"
MIB = 1 << 20
GBPS, LATENCY = "GB/s", "latency (ms)"


def render_transfers(bench: Mapping[str, Any]) -> str:
    """The page for what tools/bench_transfer.py measures: its rows, heartbeat, method and host."""
    rows, beats, host = bench["rows"], bench["heartbeat"], bench["host"]
    versions = ", ".join(f"{name} {version}" for name, version in host["versions"].items())
    where = f"{host['date']} on {host['platform']}, {host['num_cores']} cores; {versions}"
    sections = [
        f'<header><h1>Transfers of KV payloads</h1><p class="subtitle">{escape(where)}</p></header>',
        *(_section(num, [row for row in rows if row["nodes"] == num]) for num in sorted({row["nodes"] for row in rows})),
        card.section("All rows", card.box("", f"Medians of {bench['num_runs']} runs.", _table(rows))),
        *([card.section("Heartbeat of the event loops, every 5 ms", card.box("", "", _beats(beats)))] if beats else []),
        f"<footer>{''.join(f'<p>{escape(text)}</p>' for text in bench['method'].split(chr(10) * 2))}</footer>",
    ]
    return document("Transfers of KV payloads", sections, CSS)


def _section(num_nodes: int, rows: Sequence[Row]) -> str:
    where = "Between actors on one Ray node" if num_nodes == 1 else f"Between actors on {num_nodes} Ray nodes"
    by_size = [row for row in rows if row["pieces"] == 1 and row["concurrency"] == 1]
    return card.section(where, card.charts(*_by_size(by_size))) if by_size else ""


def _by_size(rows: Sequence[Row]) -> list[str]:
    """Both charts, of one piece and one payload at a time."""
    transports = list(dict.fromkeys(row["transport"] for row in rows))
    rates = [row[key] for row in rows for key in ("gbps", "raw_gbps", "memcpy_gbps") if row[key] is not None]
    rate = Figure(_sizes(rows), _logarithmic(rates), "size (MiB)", GBPS)
    latency = Figure(_sizes(rows), _logarithmic([row["latency_s"] for row in rows], 1e3), "size (MiB)", LATENCY)
    for transport, colour in zip(transports, _colours(len(transports)), strict=True):
        of_transport = sorted((row for row in rows if row["transport"] == transport), key=lambda row: row["size_bytes"])
        _line(rate, of_transport, "gbps", transport, colour)
        _line(latency, of_transport, "latency_s", transport, colour)
        if any(row["raw_gbps"] for row in of_transport):
            _line(rate, of_transport, "raw_gbps", f"{transport}, plain call", f"{colour} dashed")
    sizes = sorted({row["size_bytes"] for row in rows})
    copies = [float(np.median([row["memcpy_gbps"] for row in rows if row["size_bytes"] == num])) for num in sizes]
    rate.line(np.array(sizes, float), np.array(copies), "memcpy", "grey")
    return [
        card.chart("Rate", "Payload bytes over the time until the last is there, moved and no more, as by plain calls.", rate),
        card.chart("Latency", "From the start of the pull until the last byte is there.", latency),
    ]


def _line(figure: Figure, rows: Sequence[Row], key: str, name: str, colour: str) -> None:
    values = np.array([np.nan if row[key] is None else row[key] for row in rows], float)
    sizes = np.array([row["size_bytes"] for row in rows], float)
    figure.line(sizes, values, name, colour)
    for num_bytes, value in zip(sizes.tolist(), values.tolist(), strict=True):
        if not np.isnan(value) and "dashed" not in colour:
            figure.marker(num_bytes, value, "circle", colour, "")


def _sizes(rows: Sequence[Row]) -> Scale:
    sizes = [row["size_bytes"] / MIB for row in rows]
    return x_scale(min(sizes), max(max(sizes), 1.01 * min(sizes)), log=True, per_unit=1 / MIB)


def _logarithmic(values: Sequence[float], per_unit: float = 1.0) -> Scale:
    return Scale(per_unit * min(values), per_unit * max(values), BOTTOM, TOP, True, per_unit).rounded()


def _colours(number: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(number)]


def _table(rows: Sequence[Row]) -> str:
    sizes = ("transport", "size", "pieces", "concurrency", "nodes", "messages")
    names = (*sizes, "GB/s", "latency", "GB/s verified", "latency", "on the wire", "verifying")
    cells = [
        [
            escape(row["transport"]),
            binary_size(row["size_bytes"]),
            *(str(row[key]) for key in ("pieces", "concurrency", "nodes", "num_messages")),
            f"{row['gbps']:.3g}",
            duration(row["latency_s"]),
            f"{row['verified_gbps']:.3g}",
            *(duration(row[key]) for key in ("verified_latency_s", "wire_s", "verify_s")),
            *(NONE if row[key] is None else f"{row[key]:.3g}" for key in ("raw_gbps", "ratio_to_raw")),
            *(f"{row[key]:.3g}" for key in ("memcpy_gbps", "ratio_to_memcpy")),
        ]
        for row in rows
    ]
    return card.table([*names, "plain call GB/s", "ratio", "memcpy GB/s", "ratio"], cells)


def _beats(beats: Sequence[Row]) -> str:
    names = ("transport", "nodes", "during", "actor", "size", "beats", "late p50 (ms)", "p99", "max")
    cells = [
        [
            escape(beat["transport"]),
            *(str(beat[key]) for key in ("nodes", "during", "actor")),
            binary_size(beat["size_bytes"]),
            str(beat["beats"]),
            *(f"{beat[f'late_{name}_ms']:.2f}" for name in ("p50", "p99", "max")),
        ]
        for beat in beats
    ]
    return card.table(names, cells, text_columns=(0, 2, 3))
