#!/usr/bin/env python
"""Find the link that is slow: move a payload between all pairs of actors of a Ray cluster, both ways, and compare.

    python tools/probe_links.py [--address HOST:PORT] [--transport NAME] [--actors-per-node N] [--size SIZE] [--json FILE]

Each rate is that of verified payload bytes, the median of several transfers after one that is not counted, in GB/s (10^9
bytes). A pair is an outlier where its rate is below half of the median over its kind: pairs on one node, or on two. Hosts are
noisy, so such a pair is measured again, by itself, up to five times, and cleared by the first that is not below that. A pair
whose transfer fails has a rate of 0, and is tried once more. Exit code 1 where outliers remain. Without --address it probes a
cluster of its own, on this host.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import permutations
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, NoReturn

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH leaves it out
import hints  # noqa: F401  before what this Python may lack

import ray
from ray.exceptions import RayError, RayTaskError
from rich.console import Console
from rich.table import Table

from emu.build import build_transfer
from emu.config_error import ConfigError
from emu.core import setting
from emu.core.setting import SettingError
from emu.results.summary import host_facts
from emu.results.sweep_table import write_json
from emu.runtime.errors import RunError, gist
from emu.runtime.ray_nodes import ray_nodes
from emu.runtime.transfer_host import TransferHost
from emu.runtime.transfer_mesh import TransferMesh
from emu.transfer.destination import Pulled
from emu.transfer.settings import TransferError

SLOW = 0.5  # of the median of the pair's kind
MAX_RETRIES = 5
STORE_BYTES = 512 << 20
CONSOLE = Console(highlight=False, soft_wrap=True, width=1000)  # a row is a line: let the terminal wrap it
Pair = tuple[int, int]  # source and destination, by their actors' numbers


class Outlier(NamedTuple):
    """A pair that is slow however often it is measured: the best of its rates, the median of its kind, why its last failed."""

    pair: Pair
    gbps: float
    median_gbps: float
    failure: str


class LinkProbe:
    """The rates (GB/s) between all actors of `mesh`, each of which is on one of `nodes` (by its number)."""

    def __init__(self, mesh: TransferMesh, nodes: Sequence[Any], num_bytes: int, num_runs: int) -> None:
        self._mesh, self._nodes = mesh, nodes
        self._num_bytes, self._num_runs = num_bytes, num_runs
        self._num_moved = 0
        self._failures: dict[Pair, str] = {}
        self.gbps: dict[Pair, float] = {}

    def run(self, parallel: bool) -> None:
        """Measure every pair, one after the other, or with `parallel` those at once that have no actor in common."""
        everyone = range(len(self._nodes))
        for pairs in rounds(len(everyone)) if parallel else ([pair] for pair in permutations(everyone, 2)):
            self.gbps |= self._measure(pairs)

    def kind(self, pair: Pair) -> str:
        source, destination = pair
        return "one node" if self._nodes[source] == self._nodes[destination] else "two nodes"

    def medians(self) -> dict[str, float]:
        """The median rate of each kind of pair, of those that work."""
        rates: dict[str, list[float]] = {}
        for pair, gbps in sorted(self.gbps.items(), key=lambda item: self.kind(item[0])):
            rates.setdefault(self.kind(pair), []).append(gbps)
        return {kind: median([rate for rate in of_kind if rate] or [0.0]) for kind, of_kind in rates.items()}

    def outliers(self) -> list[Outlier]:
        """Pairs that stay below SLOW, each measured again by itself; `gbps` is then the best that it did."""
        medians, found = self.medians(), []
        for pair in list(self.gbps):
            usual = medians[self.kind(pair)]
            num_left = MAX_RETRIES if self.gbps[pair] else 1
            while (self.gbps[pair] < SLOW * usual or not self.gbps[pair]) and num_left:
                self.gbps[pair] = max(self.gbps[pair], self._measure([pair])[pair])
                num_left -= 1
            if self.gbps[pair] < SLOW * usual or not self.gbps[pair]:
                found.append(Outlier(pair, self.gbps[pair], usual, self._failures.get(pair, "")))
        return found

    def _measure(self, pairs: Sequence[Pair]) -> dict[Pair, float]:
        """The median rates of these pairs, at once; 0 where a transfer failed."""
        took_s: dict[Pair, list[float]] = {pair: [] for pair in pairs}
        working = list(pairs)
        for number in range(self._num_runs + 1):
            for pair, pulled in self._move(working):
                if isinstance(pulled, RayTaskError):
                    self._failures[pair] = gist(pulled)
                    working.remove(pair)
                elif number:
                    took_s[pair].append(pulled.verified_s - pulled.start_s)
        return {pair: self._num_bytes / median(took_s[pair]) / 1e9 if pair in working else 0.0 for pair in pairs}

    def _move(self, pairs: Sequence[Pair]) -> list[tuple[Pair, Pulled | RayTaskError]]:
        """A payload for each pair, all at once; and what came of it. Raises RayError where an actor is gone."""
        keys = [(self._num_moved + index, 1) for index in range(len(pairs))]
        self._num_moved += len(pairs)
        moves = list(zip(pairs, keys, strict=True))
        ray.get([self._mesh.start(source, "hold", *key, self._num_bytes) for (source, _), key in moves])
        pulls = [self._mesh.start(destination, "pull", source, *key, self._num_bytes) for (source, destination), key in moves]
        outcomes = [_outcome(pull) for pull in pulls]
        ray.get([self._mesh.start(source, "free", *key) for (source, _), key in moves])
        return list(zip(pairs, outcomes, strict=True))


def _outcome(pull: ray.ObjectRef) -> Pulled | RayTaskError:
    try:
        return ray.get(pull)
    except RayTaskError as error:
        return error


def rounds(num_actors: int) -> Iterator[list[Pair]]:
    """All ordered pairs, in groups without an actor in common (the circle method of tournaments)."""
    circle: list[int | None] = [*range(num_actors), *([None] if num_actors % 2 else [])]
    for _ in range(len(circle) - 1):
        half = [pair for pair in zip(circle, reversed(circle), strict=True) if None not in pair][: num_actors // 2]
        yield half
        yield [(other, one) for one, other in half]
        circle[1:] = [circle[-1], *circle[1:-1]]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = _refuse
    add, default = parser.add_argument, "default: %(default)s"
    add("--address", default="", metavar="HOST:PORT", help="of the Ray cluster; without, one is started on this host")
    add("--nodes", type=int, default=2, metavar="N", help="of a cluster of its own; default: %(default)s")
    add("--transport", default="object_store", metavar="NAME", help=default)
    add("--actors-per-node", type=int, default=2, metavar="N", help=default)
    add("--size", default="64MiB", metavar="SIZE", help=f"of a payload; {default}")
    add("--runs", type=int, default=3, metavar="N", help=f"transfers of a pair; {default}")
    add("--parallel", action="store_true", help="measure pairs at once that have no actor in common")
    add("--json", type=Path, metavar="FILE")
    add("overrides", nargs="*", metavar="transfer.KEY=VALUE")
    return parser.parse_intermixed_args(argv)


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; see --help")


def matrix(gbps: Mapping[Pair, float], num_actors: int) -> list[list[float | None]]:
    """A row a source, a column a destination."""
    return [[gbps.get((source, destination)) for destination in range(num_actors)] for source in range(num_actors)]


def table_of(gbps: Mapping[Pair, float], labels: Sequence[str], outliers: Sequence[Outlier]) -> Table:
    accused = {outlier.pair for outlier in outliers}
    table = Table("from \\ to, GB/s", box=None, pad_edge=False)
    for label in labels:
        table.add_column(label, justify="right")
    for source, row in enumerate(matrix(gbps, len(labels))):
        cells = ["-" if rate is None else f"{rate:.2f}" for rate in row]
        marked = [f"[bold red]{cell}[/]" if (source, number) in accused else cell for number, cell in enumerate(cells)]
        table.add_row(labels[source], *marked)
    return table


def probe(args: argparse.Namespace, host_type: type[TransferHost] = TransferHost) -> int:
    """Probe, print and write what was found. Returns the exit code. Raises ConfigError, SettingError, RunError, OSError."""
    num_bytes = setting.size_bytes("--size", args.size)
    num_runs, num_nodes = setting.whole("--runs", args.runs, 1, 1000), setting.whole("--nodes", args.nodes, 1, 64)
    num_actors = setting.whole("--actors-per-node", args.actors_per_node, 1, 256)
    settings = build_transfer([f"transfer={args.transport}", *_transfer_only(args.overrides)])
    settings.check()
    if not args.address:
        _check_number(num_nodes * num_actors, num_actors)
    with ray_nodes(args.address, num_nodes, STORE_BYTES) as node_ids:
        nodes = [number for number in range(len(node_ids)) for _ in range(num_actors)]
        _check_number(len(nodes), num_actors)
        hosts = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        labels = [f"{actor} (node {node})" for actor, node in enumerate(nodes)]
        for number, node_id in enumerate(node_ids):
            CONSOLE.print(f"node {number}: {hosts[node_id]}, {node_id[:12]}", markup=False)
        try:
            with TransferMesh(settings, [node_ids[node] for node in nodes], host_type) as mesh:
                links = LinkProbe(mesh, nodes, num_bytes, num_runs)
                links.run(args.parallel)
                outliers = links.outliers()
        except RayError as error:
            raise RunError(f"an actor failed: {gist(error)}") from error
    CONSOLE.print(table_of(links.gbps, labels, outliers))
    for kind, gbps in links.medians().items():
        CONSOLE.print(f"median between actors on {kind}: {gbps:.2f} GB/s", markup=False)
    for (source, destination), gbps, usual, failure in outliers:
        line = f"slow: {labels[source]} to {labels[destination]}: {gbps:.2f} GB/s, median of its kind {usual:.2f}"
        CONSOLE.print(line + (f"; {failure}" if failure else ""), markup=False, style="bold red")
    if args.json:
        content = {
            "settings": {"transport": args.transport, "size_bytes": num_bytes, "num_runs": num_runs, **asdict(settings)},
            "actors": [{"node": node, "node_id": node_ids[node], "host": hosts[node_ids[node]]} for node in nodes],
            "gbps": matrix(links.gbps, len(nodes)),
            "median_gbps": links.medians(),
            "outliers": [outlier._asdict() for outlier in outliers],
            "host": host_facts(["ray"]),
        }
        write_json(content, args.json)
    return 1 if outliers else 0


def _check_number(num_in_all: int, num_per_node: int) -> None:
    if num_in_all < 2:
        raise ConfigError(f"--actors-per-node={num_per_node}: expected at least two actors in all")


def _transfer_only(overrides: Sequence[str]) -> Sequence[str]:
    for override in overrides:
        if not override.startswith("transfer."):
            raise ConfigError(f"{override}: expected transfer.KEY=VALUE; see --help")
    return overrides


def main(argv: Sequence[str] | None = None) -> int:
    try:
        return probe(arguments(argv))
    except (ConfigError, SettingError, RunError, TransferError, OSError) as error:
        print(f"probe_links: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
