#!/usr/bin/env python
"""How fast KV payloads move between two actors, by transport, size, pieces, concurrency and nodes, beside what is possible.

    python tools/bench_transfer.py [--transports gloo,nixl] [--sizes 16MiB,1GiB] [--json F] [--html F] [transfer.KEY=VALUE ...]

Method. The actors are those of a rehearsal without machines (TransferHost). Each payload is pulled twice: once as in a
rehearsal, filled at the source and verified at the destination byte by byte (verified_gbps); and once moved and no more, as
the plain library calls do (gbps, latency_s and both ratios). GB/s: 10^9 bytes of payload, over the seconds from the start of
the pull (of the first, where several run at once) until the last byte is there. Latency: the same seconds of one payload.
Pieces: all are there, but each leaves by itself, as in a layer-wise transfer that sends one before the next is there; small
ones wait for each other as transfer.min_message_bytes says. Concurrency: so many payloads of the size are pulled at once.
Nodes: both actors on one Ray node, or on two; those are on this host too.

Two baselines are measured in the same run, each time right after the transfer. Raw: the plain library call for one whole
payload, between the same two actors, its buffers allocated, touched and registered before (tools/raw_transfer.py says which);
it neither fills nor verifies what it moves. memcpy: numpy.copyto between two touched buffers in one process. Everything is
warm: a transfer and raw calls of the largest size come first. Figures are medians over the runs, each with one measurement of
every row (of up to 4 where they are small); ratios are of these medians.

Rows of other pieces and other concurrency than one are of 64 MiB unless --full, or lists of them, are given.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH leaves it out
import hints  # noqa: F401  before what this Python may lack

import raw_transfer
import ray
import transfer_pair
from raw_transfer import RAW, Memcpy, RawPair
from ray.exceptions import RayError
from rich.console import Console
from rich.table import Table
from transfer_pair import BenchHost, Case, Sample, TransferPair

from emu.build import build_transfer
from emu.config_error import ConfigError
from emu.core import setting
from emu.core.setting import SettingError
from emu.results.report.transfers import render_transfers
from emu.results.summary import host_facts
from emu.results.sweep_table import write_json
from emu.runtime.errors import RunError, gist
from emu.runtime.ray_nodes import ray_nodes
from emu.runtime.transfer_mesh import TransferMesh
from emu.transfer.settings import TransferError, TransferSettings

SIZES, PIECES, CONCURRENCY = "64KiB,1MiB,16MiB,128MiB,512MiB,1GiB", "1,80", "1,4"
BASE_BYTES = 64 << 20
STORE_BYTES = 256 << 20  # of a node's object store, beside two and a half times the largest payload
RESULTS = ("gbps", "latency_s", "ratio_to_raw", "ratio_to_memcpy", "verified_gbps")
COLUMNS = ("transport", "size_bytes", "pieces", "concurrency", "nodes", *RESULTS)
BEATS = ("transport", "nodes", "during", "actor", "size_bytes", "beats", "late_p50_ms", "late_p99_ms", "late_max_ms")
CONSOLE = Console(highlight=False, soft_wrap=True, width=1000)  # a row is a line: let the terminal wrap it


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = _refuse
    add, default = parser.add_argument, "default: %(default)s"
    add("--transports", default="object_store,gloo,nixl", metavar="NAME[,NAME...]", help=default)
    add("--sizes", metavar="SIZE[,SIZE...]", help=f"of a payload; default: {SIZES}")
    add("--pieces", metavar="N[,N...]", help=f"of a payload; default: {PIECES}")
    add("--concurrency", metavar="N[,N...]", help=f"payloads pulled at once; default: {CONCURRENCY}")
    add("--nodes", default="1,2", metavar="N[,N]", help="1: both actors on one Ray node, 2: on two; default: %(default)s")
    add("--full", action="store_true", help="every size with all pieces and concurrency")
    add("--runs", type=int, default=5, metavar="N", help=default)
    add("--heartbeat", nargs="?", const="512MiB", metavar="SIZE", help="also a 5 ms heartbeat; default size: %(const)s")
    add("--json", type=Path, metavar="FILE", help="the rows, with the method, the host and all samples")
    add("--html", type=Path, metavar="FILE", help="a page with curves by size")
    add("overrides", nargs="*", metavar="transfer.KEY=VALUE")
    return parser.parse_intermixed_args(argv)


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; see --help")


def cases_of(args: argparse.Namespace) -> list[Case]:
    """What every transport is measured at. Raises SettingError."""
    sizes = list(dict.fromkeys(setting.size_bytes("--sizes", text) for text in (args.sizes or SIZES).split(",")))
    pieces = _numbers("--pieces", args.pieces or PIECES, 10_000)
    concurrency = _numbers("--concurrency", args.concurrency or CONCURRENCY, 256)
    if args.full:
        cases = product(sizes, pieces, concurrency)
    elif args.sizes or args.pieces or args.concurrency:
        some_sizes = sizes if args.sizes else [BASE_BYTES]
        cases = product(some_sizes, pieces if args.pieces else [1], concurrency if args.concurrency else [1])
    else:
        others = [case for case in product([BASE_BYTES], pieces, concurrency) if case.count(1) == 1]
        cases = [*product(sizes, [1], [1]), *others]
    return [Case(*case) for case in cases]


def _numbers(key: str, text: str, most: int) -> list[int]:
    """Whole numbers from 1 to `most`, each once."""
    numbers = [int(number) if number.isdecimal() else number for number in text.split(",")]
    return list(dict.fromkeys(setting.whole(key, number, 1, most) for number in numbers))


def transports_of(args: argparse.Namespace) -> dict[str, TransferSettings]:
    """The settings of each transport that is installed. Raises ConfigError."""
    for override in args.overrides:
        if not override.startswith("transfer."):
            raise ConfigError(f"{override}: expected transfer.KEY=VALUE; see --help")
    found = {name: build_transfer([f"transfer={name}", *args.overrides]) for name in args.transports.split(",")}
    for name, settings in list(found.items()):
        try:
            settings.check()
        except TransferError as missing:
            CONSOLE.print(f"{name} left out: {missing}", markup=False)
            del found[name]
    if not found:
        raise ConfigError(f"--transports {args.transports}: nothing of it is installed")
    return found


def raw_of(settings: TransferSettings) -> type[raw_transfer.RawEnd] | None:
    """The plain call that a transport is compared with; those here are of host memory."""
    return RAW.get(settings.name) if getattr(settings, "device", "cpu") == "cpu" else None


def measured(pair: TransferPair, cases: Sequence[Case], num_runs: int) -> list[dict[str, Any]]:
    """A row a case, of a sample from every run; transfers and baselines of the largest come first."""
    for _ in range(2):
        pair.sample(Case(max(case.size_bytes for case in cases), 1, 1))
    samples: dict[Case, list[Sample]] = {case: [] for case in cases}
    for _ in range(num_runs):
        for case in cases:
            samples[case].append(pair.sample(case))
    return [row_of(case, of_case) for case, of_case in samples.items()]


def row_of(case: Case, samples: Sequence[Sample]) -> dict[str, Any]:
    middle = transfer_pair.middle(samples)
    gbps = case.size_bytes * case.concurrency / middle.seconds / 1e9
    raw_gbps = None if middle.raw_s is None else case.size_bytes / middle.raw_s / 1e9
    memcpy_gbps = case.size_bytes / middle.memcpy_s / 1e9
    return case._asdict() | {
        "gbps": gbps,
        "latency_s": middle.latency_s,
        "ratio_to_raw": None if raw_gbps is None else gbps / raw_gbps,
        "ratio_to_memcpy": gbps / memcpy_gbps,
        "verified_gbps": case.size_bytes * case.concurrency / middle.verified_seconds / 1e9,
        "verified_latency_s": middle.verified_latency_s,
        "raw_gbps": raw_gbps,
        "memcpy_gbps": memcpy_gbps,
        "wire_s": middle.wire_s,
        "verify_s": middle.verify_s,
        "num_messages": int(middle.num_messages),
        "samples": [sample._asdict() for sample in samples],
    }


def bench(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """All that is measured, and how many transports failed. Raises ConfigError, SettingError, RunError."""
    cases, num_runs = cases_of(args), setting.whole("--runs", args.runs, 1, 1000)
    spans = _numbers("--nodes", args.nodes, 2)
    heartbeat_bytes = args.heartbeat and setting.size_bytes("--heartbeat", args.heartbeat)
    transports = transports_of(args)
    largest = max(case.size_bytes for case in cases)
    rows, beats, num_failed = [], [], 0
    with ray_nodes("", max(spans), STORE_BYTES + largest * 5 // 2) as nodes:
        memcpy = Memcpy(largest)
        for (name, settings), span in product(transports.items(), spans):
            what, label = f"{name}, {span} node{'s' * (span > 1)}", {"transport": name, "nodes": span}
            CONSOLE.print(f"measuring {what}", markup=False, style="dim")
            try:
                with TransferMesh(settings, [nodes[0], nodes[span - 1]], BenchHost) as mesh:
                    raw = raw_of(settings) and RawPair(raw_of(settings), mesh.start, largest)
                    pair = TransferPair(mesh, raw, memcpy)
                    rows += [label | row for row in measured(pair, cases, num_runs)]
                    if heartbeat_bytes:
                        beats += [label | beat for beat in pair.heartbeat(heartbeat_bytes, num_runs)]
                    if troubles := pair.troubles():
                        CONSOLE.print(f"{what}: {troubles}", markup=False, style="yellow")
            except RayError as error:
                CONSOLE.print(f"{what} left out: {gist(error)}", markup=False, style="red")
                num_failed += 1
    modules = {module for settings in transports.values() for module in settings.modules if find_spec(module)}
    content = {
        "method": __doc__.partition("Method. ")[2],
        "settings": {name: asdict(settings) for name, settings in transports.items()},
        "num_runs": num_runs,
        "host": host_facts(["numpy", "ray", *sorted(modules)]),
        "rows": rows,
        "heartbeat": beats,
    }
    return content, num_failed


def table_of(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    return table


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def main(argv: Sequence[str] | None = None) -> int:
    for module in (raw_transfer, transfer_pair):
        ray.cloudpickle.register_pickle_by_value(module)  # actors cannot import tools
    try:
        args = arguments(argv)
        content, num_failed = bench(args)
        for rows, columns in ((content["rows"], COLUMNS), (content["heartbeat"], BEATS)):
            if rows:
                CONSOLE.print(table_of(rows, columns))
        if args.json:
            write_json(content, args.json)
        if args.html:
            args.html.write_text(render_transfers(content), encoding="utf-8")
    except (ConfigError, SettingError, RunError, OSError) as error:
        print(f"bench_transfer: {error}", file=sys.stderr)
        return 2
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
