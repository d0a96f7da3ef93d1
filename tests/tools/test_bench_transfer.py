"""The whole bench on the tests' Ray cluster with small payloads, and what it refuses."""

import json
import statistics
from pathlib import Path

import pytest

from emu.transfer.settings import NixlSettings


@pytest.fixture
def bench(monkeypatch):
    """tools/bench_transfer.py as a module, which imports others of its folder."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "tools")
    import bench_transfer

    return bench_transfer


def test_rows_of_every_transport_a_table_and_a_page(bench, two_nodes, tmp_path, capsys):
    output, page = tmp_path / "rows.json", tmp_path / "page.html"
    grid = ["--sizes", "1MiB", "--pieces", "1,3,80", "--concurrency", "1,2", "--nodes", "2", "--runs", "2"]
    settings = ["transfer.num_buffers=2", "transfer.min_message_bytes=262144"]
    code = bench.main([*grid, "--heartbeat", "1MiB", "--json", str(output), "--html", str(page), *settings])
    shown = capsys.readouterr()
    assert (code, shown.err) == (0, "")
    found = json.loads(output.read_text())
    transports = [name for name in ("object_store", "gloo", "nixl") if f"{name} left out" not in shown.out]
    assert {name: settings["num_buffers"] for name, settings in found["settings"].items()} == dict.fromkeys(transports, 2)
    rows = found["rows"]
    assert [[row[key] for key in ("transport", "size_bytes", "pieces", "concurrency", "nodes")] for row in rows] == [
        [name, 1 << 20, pieces, concurrency, 2] for name in transports for pieces in (1, 3, 80) for concurrency in (1, 2)
    ]
    for row in rows:
        keys = ("seconds", "verified_seconds", "raw_s", "memcpy_s")
        seconds, verified_s, raw_s, memcpy_s = (statistics.median(sample[key] for sample in row["samples"]) for key in keys)
        assert len(row["samples"]) == 2
        assert row["gbps"] == pytest.approx(row["size_bytes"] * row["concurrency"] / seconds / 1e9)
        assert row["ratio_to_raw"] == pytest.approx(row["concurrency"] * raw_s / seconds)
        assert row["ratio_to_memcpy"] == pytest.approx(row["concurrency"] * memcpy_s / seconds)
        assert row["verified_gbps"] == pytest.approx(row["size_bytes"] * row["concurrency"] / verified_s / 1e9)
        assert 0 < row["wire_s"] < verified_s
        # Pieces of 341 KiB leave one by one; 20 of 13 KiB are the first 256.
        assert row["num_messages"] == {1: 1, 3: 3, 80: 4}[row["pieces"]]
    assert [(beat["transport"], beat["during"], beat["actor"]) for beat in found["heartbeat"]] == [
        (name, during, actor) for name in transports for during in ("idle", "transfer") for actor in ("source", "destination")
    ]
    assert min(beat["beats"] for beat in found["heartbeat"]) > 10
    header = "transport size_bytes pieces concurrency nodes gbps latency_s ratio_to_raw ratio_to_memcpy verified_gbps"
    assert header in [" ".join(line.split()) for line in shown.out.splitlines()]
    text = page.read_text()
    assert all(f"{name}, plain call" in text for name in transports)
    assert "://" not in text.replace("http://www.w3.org", "")


def test_without_a_list_the_grid_is_a_star(bench):
    sizes = [1 << 16, 1 << 20, 1 << 24, 1 << 27, 1 << 29, 1 << 30]
    cases = bench.cases_of(bench.arguments([]))
    assert cases == [*((num_bytes, 1, 1) for num_bytes in sizes), (1 << 26, 1, 4), (1 << 26, 80, 1)]
    assert len(bench.cases_of(bench.arguments(["--full"]))) == 6 * 2 * 2
    assert bench.cases_of(bench.arguments(["--pieces", "1,5"])) == [(1 << 26, 1, 1), (1 << 26, 5, 1)]


def test_a_transport_that_is_not_installed_is_left_out(bench, monkeypatch, capsys):
    monkeypatch.setattr(NixlSettings, "modules", ("no_such_module",))
    assert list(bench.transports_of(bench.arguments(["--transports", "nixl,object_store"]))) == ["object_store"]
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("nixl left out: transfer=nixl needs no_such_module, which is not installed")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--sizes", "1MiB,12x"], "--sizes=12x: expected a size > 0 such as 65536, 64KiB, 1MiB or 1GiB"),
        (["--sizes", "0"], "--sizes=0: expected a size > 0 such as 65536, 64KiB, 1MiB or 1GiB"),
        (["--pieces", "0"], "--pieces=0: expected a whole number from 1 to 10000"),
        (["--concurrency", "some"], "--concurrency=some: expected a whole number from 1 to 256"),
        (["--nodes", "3"], "--nodes=3: expected a whole number from 1 to 2"),
        (["--runs", "0"], "--runs=0: expected a whole number from 1 to 1000"),
        (["--runs", "two"], "argument --runs: invalid int value: 'two'; see --help"),
        (["--heartbeat", "much"], "--heartbeat=much: expected a size > 0 such as 65536, 64KiB, 1MiB or 1GiB"),
        (["--transports", "pigeon"], "transfer=pigeon: no such option; expected one of "),
        (["seed=1"], "seed=1: expected transfer.KEY=VALUE; see --help"),
        (["transfer.num_buffers=0"], "transfer.num_buffers=0: expected a whole number from 1 to 1024"),
        (["transfer.num_buffers=few"], "transfer.num_buffers=few: expected a whole number"),
        (["transfer.colour=1"], "transfer.colour: no such setting; transfer has "),
    ],
)
def test_wrong_arguments_are_one_line(bench, arguments, line, capsys):
    assert bench.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"bench_transfer: {line}")
    assert shown.err.count("\n") == 1
