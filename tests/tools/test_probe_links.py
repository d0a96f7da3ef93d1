"""A link that is slow is found, alone, and noise is not accused."""

import asyncio
import itertools
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import ray

from emu.runtime.transfer_host import TransferHost

SLOW_LINK = (1, 2)  # from the second actor of the first node to the first of the second


class SlowHost(TransferHost):
    """Waits with each message that comes by SLOW_LINK."""

    async def open_transfer(self, host):
        address = await super().open_transfer(host)
        transport = self.transfer.transport
        receive = transport.receive

        @asynccontextmanager
        async def receive_late(peer, ticket, num_bytes):
            if (peer, self.address) == SLOW_LINK:
                await asyncio.sleep(1.0)
            async with receive(peer, ticket, num_bytes) as received:
                yield received

        transport.receive = receive_late
        return address


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "tools")
    import probe_links

    return probe_links


def test_the_slow_link_is_found(tool, two_nodes, tmp_path, capsys):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import tests
    output = tmp_path / "links.json"
    arguments = tool.arguments(["--size", "1MiB", "--runs", "1", "--json", str(output)])
    assert tool.probe(arguments, SlowHost) == 1
    lines = capsys.readouterr().out.splitlines()
    slow = [line.partition(": ")[2].partition(":")[0] for line in lines if line.startswith("slow")]
    assert "1 (node 0) to 2 (node 1)" in slow  # a busy host may slow others
    found = json.loads(output.read_text())
    outliers = {tuple(outlier["pair"]): outlier["gbps"] for outlier in found["outliers"]}
    assert len(outliers) == len(slow)
    assert [[rate is None for rate in row] for row in found["gbps"]] == [
        [one == other for other in range(4)] for one in range(4)
    ]
    assert [actor["node"] for actor in found["actors"]] == [0, 0, 1, 1]
    slowest = min(rate for row in found["gbps"] for rate in row if rate is not None)
    assert found["gbps"][1][2] == outliers[SLOW_LINK] == slowest


class Scripted:
    """The rates of pairs as they are measured, one after the other; the last goes on. Others have 10 GB/s."""

    def __init__(self, **rates):
        self.rates = {tuple(map(int, name.removeprefix("from").split("to"))): iter(values) for name, values in rates.items()}
        self.measured = []

    def __call__(self, pairs):
        self.measured += pairs
        return {pair: next(self.rates.get(pair, itertools.repeat(10.0))) for pair in pairs}


@pytest.fixture
def scripted(tool):
    """What is found where actors 0 and 1 are on node a, and 2 and 3 on b: the probe, its script and the outliers."""

    def run(parallel=False, **rates):
        probe = tool.LinkProbe(None, "aabb", 1 << 20, 3)
        probe._measure = script = Scripted(**rates)
        probe.run(parallel)
        return probe, script, [(outlier.pair, outlier.gbps, outlier.median_gbps) for outlier in probe.outliers()]

    return run


def test_a_pair_that_was_slow_once_is_cleared(scripted):
    probe, script, outliers = scripted(from0to1=[2.0, 4.9, 5.0])
    assert outliers == []
    assert script.measured.count((0, 1)) == 3
    assert probe.gbps[0, 1] == 5.0


def test_a_pair_that_stays_slow_has_its_best_rate(scripted):
    _, script, outliers = scripted(from0to2=[2.0, 4.9, 3.0, 1.0, 1.0, 1.0])
    assert outliers == [((0, 2), 4.9, 10.0)]
    assert len(script.measured) == 12 + 5


def test_pairs_are_compared_with_their_kind(scripted):
    """Between nodes it is always a quarter as fast as on one, which is nobody's fault."""
    across = {f"from{one}to{other}": [2.5] for one, other in itertools.permutations(range(4), 2) if one // 2 != other // 2}
    probe, _, outliers = scripted(parallel=True, **across)
    assert outliers == []
    assert probe.medians() == {"one node": 10.0, "two nodes": 2.5}


def test_a_pair_that_fails_is_tried_once_more(scripted):
    _, script, outliers = scripted(from3to0=[0.0, 0.0])
    assert outliers == [((3, 0), 0.0, 10.0)]
    assert script.measured.count((3, 0)) == 2


@pytest.mark.parametrize("num_actors", [2, 3, 4, 7, 8])
def test_rounds_hold_every_pair_once_and_no_actor_twice(tool, num_actors):
    rounds = list(tool.rounds(num_actors))
    assert sorted(itertools.chain(*rounds)) == sorted(itertools.permutations(range(num_actors), 2))
    for pairs in rounds:
        assert len(pairs) == num_actors // 2
        assert len(set(itertools.chain(*pairs))) == 2 * len(pairs)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--size", "big"], "--size=big: expected a size > 0 such as 65536, 64KiB, 1MiB or 1GiB"),
        (["--runs", "0"], "--runs=0: expected a whole number from 1 to 1000"),
        (["--actors-per-node", "0"], "--actors-per-node=0: expected a whole number from 1 to 256"),
        (["--transport", "pigeon"], "transfer=pigeon: no such option; expected one of "),
        (["seed=1"], "seed=1: expected transfer.KEY=VALUE; see --help"),
        (["--colour"], "unrecognized arguments: --colour; see --help"),
        (["--nodes", "1", "--actors-per-node", "1"], "--actors-per-node=1: expected at least two actors in all"),
    ],
)
def test_wrong_arguments_are_one_line(tool, arguments, line, capsys):
    assert tool.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"probe_links: {line}")
    assert shown.err.count("\n") == 1


def test_links_that_all_fail_are_named(scripted):
    """Between the nodes nothing gets through: there is no usual rate to be below."""
    across = {f"from{one}to{other}": [0.0] * 2 for one, other in itertools.permutations(range(4), 2) if one // 2 != other // 2}
    probe, _, outliers = scripted(**across)
    assert [(gbps, usual) for _, gbps, usual in outliers] == [(0.0, 0.0)] * 8
    assert probe.medians() == {"one node": 10.0, "two nodes": 0.0}
