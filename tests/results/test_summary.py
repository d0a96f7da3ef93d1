"""What is written: summary.json, requests.parquet, and the table on the terminal."""

import io
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from facts import decode, prefill, recorded, run_cluster, run_record, summary_of
from pyarrow import parquet

from emu.core.facts import RequestEnded, RequestPlaced
from emu.results.ledger import SPANS
from emu.results.requests_file import write_requests
from emu.results.run_record import INCIDENTS, Fidelity, KVStats
from emu.results.summary import overrun_seconds, write_summary
from emu.results.terminal import print_summary

# The keys that others script against.
KEYS = (
    *("verdict", "verdict_reasons", "saturated", "requests.submitted", "requests.finished", "requests.failed"),
    *("tokens.prompt", "tokens.output", "tokens.recomputed", "offered_rps", "completed_rps", "emulated_s"),
    *("events", "seed", "pools"),
    *("ttft_s", "tbt_s", "tpot_s", "e2e_s", "queue_s", "second_token_gap_s", "decode_start_gap_s", "paused", "evicted"),
    *("kv.bytes_modelled", "kv.bytes_moved", "kv.payload_scale", "kv.transfers", "kv.verified"),
    *(f"kv.{name}" for name in INCIDENTS),
    *(
        "handover.requests",
        "handover.gap_s.p99",
        "handover.span_s.wire.mean",
        "handover.share.wait",
        "handover.plan.serialized",
    ),
    *("kv.overruns", "kv.blocks", "late.messages", "late.wakeups", "timing.extrapolated_steps"),
    *("slo.met", "slo.met_by_every_gap", "slo.limits.tbt.p99.margin", "slo.share_within_p99", "slo.goodput_rps", "slo.reason"),
    *("cost.machine_hours.total", "cost.dollars.per_million_output_tokens", "energy.kwh.per_request", "energy.method"),
    *("utilisation.roles.decode", "utilisation.machines.d1", "utilisation.batch_tokens.prefill.p90"),
    *("host.wall_s", "host.versions"),
)


def small_run(**faults):
    rng = np.random.default_rng(3)
    arrivals = np.cumsum(rng.exponential(0.2, 40))
    requests = [(float(at_s), int(rng.integers(4, 40)), int(rng.integers(1, 50))) for at_s in arrivals]
    requests[7] = (*requests[7][:2], 1)
    return run_cluster(("p0", "p1", "d0", "d1"), requests, num_kv_blocks=60, **faults)


def test_the_same_run_writes_the_same_bytes(tmp_path):
    written = []
    for name in ("a", "b"):
        record = small_run(faults=[(2, 3.0)])
        folder = tmp_path / name
        folder.mkdir()
        summary = summary_of(record, 1.0)
        write_requests(record.recorder.columns().requests, folder / "requests.parquet")
        host = summary.pop("host")
        write_summary(summary, folder / "summary.json")
        written.append([(folder / file).read_bytes() for file in ("requests.parquet", "summary.json")])
        assert host["wall_s"] > 0
    assert written[0] == written[1]
    assert json.loads(written[0][1])["machines_died"] == ["d0"]


def test_every_key_is_there_and_survives_json(tmp_path):
    summary = summary_of(small_run())
    write_summary(summary, tmp_path / "summary.json")
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    read = json.loads((tmp_path / "summary.json").read_text())
    assert read == summary
    for key in KEYS:
        value = read
        for part in key.split("."):
            value = value[part]
    for key in ("ttft_s", "tbt_s", "tpot_s", "e2e_s", "queue_s", "second_token_gap_s", "decode_start_gap_s"):
        assert list(read[key]) == ["mean", "p50", "p90", "p99", "max"]


def test_a_run_that_ended_before_it_began():
    record = run_record(recorded([(0, 8, 2)], []), emulated_s=0.0, interrupted="Ctrl-C")
    summary = summary_of(record)
    assert (summary["verdict"], summary["verdict_reasons"]) == ("INVALID", ["interrupted: Ctrl-C"])
    assert summary["requests"] == {"submitted": 0, "finished": 0, "failed": 0, "skipped": 0}
    assert summary["completed_rps"] is None
    assert summary["tbt_s"]["p99"] is None
    json.dumps(summary, allow_nan=False)


def test_the_partial_summary_of_an_interrupted_run():
    facts = [
        (0, RequestPlaced(0, 1, 0, 0)),
        (1, RequestPlaced(1, 1, 0, 0)),
        prefill(0, 0, 1, (0, 1, 8, 0), finished=(0,)),
        (1, RequestEnded(0, 1, "")),
        prefill(0, 1, 2, (1, 1, 8, 0)),
        decode(0, 2, [3, 4], (1, 1, 8, 1)),
    ]
    record = run_record(recorded([(0, 8, 1), (1, 8, 9), (50, 8, 9)], facts), interrupted="Ctrl-C")
    summary = summary_of(record)
    assert summary["verdict_reasons"] == ["interrupted: Ctrl-C"]
    assert summary["requests"] == {"submitted": 2, "finished": 1, "failed": 0, "skipped": 0}
    assert summary["tokens"]["output"] == 4
    assert summary["interrupted"] == "Ctrl-C"


def test_a_summary_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "summary.json"
    write_summary({"seed": 1}, path)
    with pytest.raises(ValueError, match="Out of range float"):
        write_summary({"seed": float("nan")}, path)
    assert json.loads(path.read_text()) == {"seed": 1}


def test_requests_are_read_back_as_they_were(tmp_path):
    record = small_run(faults=[(2, 3.0)])
    requests = record.recorder.columns().requests
    requests.prefill_on[5] = -1
    write_requests(requests, tmp_path / "requests.parquet")
    table = parquet.read_table(tmp_path / "requests.parquet")
    assert table["request_id"].to_pylist() == list(range(40))
    assert table["prefill_on"].null_count == 1
    for name in ("arrival_s", "first_token_s", "kv_pull_s", "second_token_s"):
        read = np.array(table[name].to_pylist(), dtype=float)
        np.testing.assert_array_equal(read, getattr(requests, name))
    for name in ("prompt_tokens", "num_tokens_out", "num_recomputed", "attempts"):
        np.testing.assert_array_equal(table[name].to_numpy(), getattr(requests, name))
    assert np.isnan(requests.second_token_s).any()
    assert table["second_token_s"].null_count == np.isnan(requests.second_token_s).sum()
    assert set(table["status"].to_pylist()) == {"finished"}
    assert set(table["cause"].to_pylist()) == {""}


def test_causes_are_told_as_text(tmp_path):
    recorder = recorded([(0, 8, 1), (1, 8, 1)], [(0, RequestEnded(0, 1, "too long"))])
    write_requests(recorder.columns().requests, tmp_path / "requests.parquet")
    table = parquet.read_table(tmp_path / "requests.parquet")
    assert table["status"].to_pylist() == ["failed", "unfinished"]
    assert table["cause"].to_pylist() == ["too long", ""]
    assert table["end_s"].to_pylist() == [0, None]


def printed(summary):
    file = io.StringIO()
    print_summary(summary, file)
    return file.getvalue()


def test_the_terminal_shows_the_verdict_first_and_no_colour_to_a_file():
    fidelity = Fidelity(np.array([0.0, 0.25]), np.array([0.001]), 3.0, 0.0, 1.0)
    record = small_run(faults=[(2, 3.0)])
    record = run_record(record.recorder, ("p0", "p1", "d0", "d1"), fidelity=fidelity, kv=KVStats(0.5, 10**9, 47))
    summary = summary_of(record) | {"saturated": True}
    lines = printed(summary).splitlines()
    assert lines[0] == "INVALID SATURATED"
    assert len(summary["verdict_reasons"]) == 4  # that it has no fact of a verified payload is one
    assert lines[1:5] == [f"  {reason}" for reason in summary["verdict_reasons"]]
    assert "\x1b" not in "".join(lines)
    [ttft] = [line.split() for line in lines if line.startswith("TTFT")]
    assert ttft[1:] == [f"{summary['ttft_s'][name] * 1e3:,.1f}" for name in ("mean", "p50", "p90", "p99", "max")]
    text = "\n".join(lines)
    assert "40 of 40 finished, 0 failed" in text
    assert "1.00 GB moved, 47 verified, 0 corrupt" in text
    assert "died      d0\n" in text
    assert summary["restarted"] > 0
    assert f"restarts  {summary['restarted']} of requests whose machine or KV transfer was lost" in text
    assert "messages  2; after their due time by 125.00 ms (p50), 225.00 ms (p90), 247.50 ms (p99), 250.00 ms (max)" in text


def test_the_terminal_tells_where_the_gap_goes():
    summary = summary_of(small_run())
    shares = dict.fromkeys(SPANS, 0.0) | dict(wire=0.004, wait=0.35, step=0.646)
    summary["handover"] |= dict(requests=1234, gap_s=dict(mean=0.0717), share=shares)
    text = printed(summary)
    assert "\nhand-over 1,234 requests, 71.7 ms to the second token: step 65%, wait 35%\nsteps " in text
    plans = {name: dict(gap_s=dict(mean=mean_s), span_s=dict(wire=dict(mean=0.002))) for name, mean_s in (("a", 1), ("b", 2))}
    summary["handover"] |= dict(plan=plans, payload=dict(wire_s=dict(mean=0.004), link_s=dict(mean=0.001)))
    text = printed(summary)
    assert "\n          a 1,000.0 ms, wire 2.00 ms; b 2,000.0 ms, wire 2.00 ms\n" in text
    assert "\n          a KV cache was really on the wire for 4.00 ms, and by the model 1.00 ms\n" in text


def test_the_terminal_tells_objectives_and_cost():
    lines = printed(summary_of(small_run())).splitlines()
    [slo] = [line for line in lines if line.startswith("SLOs ")]
    assert re.fullmatch(
        r"SLOs      met by mean TBT, met by every gap; least margin \+\d+% \([A-Z0-9]+ p\d\d\); "
        r"[\d.]+% of requests within all p99 limits",
        slo,
    )
    [cost] = [line for line in lines if line.startswith("cost ")]
    assert re.fullmatch(
        r"cost      [\d.]+ machine-hours, \$[\d.]+, [\d.]+ kWh \(power=rated\); "
        r"[\d.,]+ machine-hours, \$[\d.,]+, [\d.,]+ kWh a million output tokens",
        cost,
    )


def test_the_terminal_says_why_nothing_was_judged():
    summary = summary_of(small_run())
    summary["slo"] |= {"met": None, "reason": "no timing for it"}
    assert "SLOs      not judged: no timing for it" in printed(summary).splitlines()


def test_the_terminal_of_a_run_in_which_nothing_happened():
    summary = summary_of(run_record(recorded([(0, 8, 2)], [])))
    lines = printed(summary).splitlines()
    assert lines[0] == "INVALID"
    assert "SLOs      missed by mean TBT, missed by every gap" in lines
    [ttft] = [line.split() for line in lines if line.startswith("TTFT")]
    assert ttft[1:] == ["-"] * 5
    assert not any(line.startswith("hand-over") for line in lines)


def test_importing_results_imports_nothing_slow():
    code = (
        "import sys, emu.results.summary, emu.results.requests_file, emu.results.terminal, emu.results.recorder;"
        "print(*sorted({'pyarrow', 'rich', 'ray', 'hydra', 'omegaconf', 'msgpack'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_payload_is_late_against_the_end_of_its_prefill_where_that_was_real():
    """Modelled until 1 s, verified at 1.4 s. Machine 0 is real, and its prefill ended at 1.3 s; as did that of machine 1, which
    is not; of a request that was started again it is not known which prefill its payload was of."""
    columns = SimpleNamespace(
        payloads=SimpleNamespace(request_id=np.arange(3), modelled_s=np.full(3, 1.0), verified_s=np.full(3, 1.4)),
        requests=SimpleNamespace(attempts=np.array([1, 1, 2]), prefill_on=np.array([0, 1, 0]), first_token_s=np.full(3, 1.3)),
    )
    assert overrun_seconds(columns, real=(0,)).tolist() == pytest.approx([0.1, 0.4, 0.4])
