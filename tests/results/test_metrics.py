from collections import defaultdict

import numpy as np
import pytest
from facts import decode, prefill, recorded, run_cluster, run_record, summary_of
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.core.facts import KVHandedOver, PoolChanged, RequestEnded, RequestPlaced, TokensEmitted
from emu.results.invariants import Ended, violations
from emu.results.ledger import handover_ledger
from emu.results.metrics import completed_rps, latencies, lateness, offered_rps, pool_seconds
from emu.results.run_record import INCIDENTS, Fidelity

STATISTICS = ("mean", "p50", "p90", "p99", "max")


def told(*values):
    """The five figures of `values`, by numpy on the values themselves."""
    if not values:
        return dict.fromkeys(STATISTICS)
    figures = (np.mean(values), *np.percentile(values, (50, 90, 99)), max(values))
    return {name: pytest.approx(figure, rel=1e-12) for name, figure in zip(STATISTICS, figures, strict=True)}


def two_requests():
    """0: prefill at 0.5, tokens at 1, 1.75, 2, 2.5. 1: one token at 1. 2: failed. 3: arrives late, tokens at 5 and 6."""
    return recorded(
        [(0.25, 100, 4), (0.5, 20, 1), (0.75, 999, 3), (4, 8, 2)],
        [
            (0, PoolChanged(0, "prompt")),
            (0, PoolChanged(1, "token")),
            (0, PoolChanged(2, "token")),
            *((arrival_s, RequestPlaced(request, 1, 0, 1)) for request, arrival_s in enumerate((0.25, 0.5, 0.75, 4))),
            (0.875, RequestEnded(2, 1, "999 tokens do not fit")),
            prefill(0, 0.5, 1.0, (0, 1, 100, 0), (1, 1, 20, 0), finished=(1,)),
            (1.0, RequestEnded(1, 1, "")),
            (1.5, KVHandedOver(0, 1, 0, 1, 100, 1.125, 1.25)),
            decode(1, 1.5, [1.75, 2.0, 2.5], (0, 1, 100, 1), finished=(0,)),
            (2.5, RequestEnded(0, 1, "")),
            (3.0, PoolChanged(2, "mixed")),
            prefill(0, 4.5, 5.0, (3, 1, 8, 0)),
            (5.0, PoolChanged(2, "dead")),
            (5.25, KVHandedOver(3, 1, 0, 1, 8, 5.0, 5.125)),
            decode(1, 5.5, [6.0], (3, 1, 8, 1), finished=(3,)),
            (6.0, RequestEnded(3, 1, "")),
        ],
    )


def test_every_metric_by_hand():
    summary = summary_of(run_record(two_requests(), emulated_s=6.0))
    assert summary["verdict_reasons"] == ["1 of 4 requests failed: 25.00% (limit 1.00%)"]
    assert summary["requests"] == {"submitted": 4, "finished": 3, "failed": 1, "skipped": 0}
    assert summary["tokens"] == {"prompt": 128, "output": 7, "recomputed": 0, "lost": 0}
    assert summary["ttft_s"] == told(0.75, 0.5, 1.0)
    assert summary["tbt_s"] == told(0.75, 0.25, 0.5, 1.0)
    assert summary["tpot_s"] == told(0.5, 1.0)
    assert summary["e2e_s"] == told(2.25, 0.5, 2.0)
    assert summary["queue_s"] == told(0.25, 0.0, 0.5)
    assert summary["second_token_gap_s"] == told(0.75, 1.0)
    assert summary["decode_start_gap_s"] == told(0.5, 0.5)
    assert summary["offered_rps"] == 4 / 3.75
    assert summary["completed_rps"] == 3 / 5.75
    assert summary["kv"] == {
        "bytes_modelled": 108 * 64,
        "bytes_moved": 0,
        "payload_scale": 0.0,
        "transfers": 2,
        "verified": 0,
        "overruns": 0,
        **dict.fromkeys(INCIDENTS, 0),
        "blocks": {"prefill": {"box": 100}, "decode": {"box": 100}},
    }
    assert summary["pools"] == {"prompt": 6.0, "token": 9.0, "mixed": 2.0, "dead": 1.0}
    assert summary["machines_died"] == ["d1"]
    assert summary["machines"] == {"prefill": {"box": 1}, "decode": {"box": 2}}
    assert summary["timing"] == {"steps": 6, "extrapolated_steps": 0}
    assert (summary["seed"], summary["runtime"], summary["events"], summary["emulated_s"]) == (7, "virtual", 12, 6.0)
    assert (summary["paused"], summary["evicted"], summary["restarted"], summary["saturated"]) == (0, 0, 0, False)


def test_the_warm_up_counts_in_no_latency():
    metrics = latencies(two_requests().columns(), warmup_s=4.0)
    assert metrics["ttft_s"] == told(1.0)
    assert metrics["tbt_s"] == told(1.0)
    metrics = latencies(two_requests().columns(), warmup_s=4.01)
    assert all(metrics[key] == told() for key in metrics)


def test_a_request_that_lost_tokens_with_a_dead_machine_counts_in_no_latency():
    recorder = recorded(
        [(0, 8, 3), (1, 8, 1)],
        [
            (0, RequestPlaced(0, 1, 0, 1)),
            (1, RequestPlaced(1, 1, 0, 1)),
            prefill(0, 1, 2, (0, 1, 8, 0), (1, 1, 8, 0), finished=(1,)),
            (2, RequestEnded(1, 1, "")),
            (4, RequestEnded(0, 1, "")),
            (4, PoolChanged(1, "dead")),
        ],
    )
    record = run_record(recorder, fidelity=Fidelity(np.zeros(3), np.zeros(3), 0.0, 0.0, 1.0))
    summary = summary_of(record)
    assert summary["verdict"] == "VALID", summary["verdict_reasons"]
    assert summary["requests"]["finished"] == 2
    assert summary["tokens"] == {"prompt": 16, "output": 2, "recomputed": 0, "lost": 2}
    assert summary["e2e_s"] == told(1.0)


def test_lateness_counts_what_came_after_its_due_time():
    late = lateness(Fidelity(np.array([0.0, 0.0, 0.25, 0.75]), np.array([0.5]), 0.0, 0.0, 1.0))
    assert late["messages"] == {"count": 4, "late": 2, **told(0.0, 0.0, 0.25, 0.75)}
    assert late["wakeups"] == {"count": 1, "late": 1, **told(0.5)}
    assert lateness(None)["messages"] == {"count": 0, "late": 0, **told()}


def test_pools_end_with_the_run():
    columns = recorded([(0, 8, 1)], [(0, PoolChanged(0, "prompt")), (7, PoolChanged(0, "dead"))]).columns()
    assert pool_seconds(columns.pool_moves, 5.0) == {"prompt": 5.0, "token": 0.0, "mixed": 0.0, "dead": 0.0}


def listed_tokens(facts):
    """{request: {token number: first time}} and the number of tokens that came again, one token at a time."""
    out_s, num_again, decoding = defaultdict(dict), 0, defaultdict(dict)
    for _, fact in facts:
        if type(fact) is not TokensEmitted:
            continue
        numbers = decoding[fact.machine]
        prefills = ()
        if fact.batch is not None:
            prefills = fact.batch.prefills
            for request in fact.batch.leaves:
                del numbers[request]
            numbers.update({join.request_id: join.num_generated + 1 for join in fact.batch.joins})
        for step, at_s in enumerate(fact.boundaries_s):
            tokens = list(numbers.items())
            if step == 0:
                tokens += [(prefill.request_id, prefill.num_generated + 1) for prefill in prefills]
            for request, number in tokens:
                num_again += number in out_s[request]
                out_s[request][number] = min(at_s, out_s[request].get(number, np.inf))
            for request in numbers:
                numbers[request] += 1
        for request in fact.finished:
            numbers.pop(request, None)
    return out_s, num_again


def check_against_listed_tokens(record):
    """The metrics of a run equal those of its list of tokens, and its invariants hold."""
    recorder, columns = record.recorder, record.recorder.columns()
    assert violations(Ended(columns, handover_ledger(columns, record.cluster))) == []
    summary = summary_of(record)
    out_s, num_again = listed_tokens(recorder.facts)
    finished = [fact.request_id for _, fact in recorder.facts if type(fact) is RequestEnded and not fact.cause]
    tokens = [[out_s[request][number] for number in sorted(out_s[request])] for request in finished]
    arrivals = [recorder.workload.arrival_s[request] for request in finished]
    several = [times for times in tokens if len(times) > 1]
    assert [len(times) for times in tokens] == [recorder.workload.output_tokens[request] for request in finished]
    assert summary["ttft_s"] == told(*(times[0] - start for times, start in zip(tokens, arrivals, strict=True)))
    assert summary["e2e_s"] == told(*(times[-1] - start for times, start in zip(tokens, arrivals, strict=True)))
    assert summary["tbt_s"] == told(*(gap for times in several for gap in np.diff(times)))
    assert summary["tpot_s"] == told(*((times[-1] - times[0]) / (len(times) - 1) for times in several))
    assert summary["second_token_gap_s"] == told(*(times[1] - times[0] for times in several))
    assert summary["tokens"]["output"] == sum(len(times) for times in out_s.values())
    assert summary["tokens"]["recomputed"] == num_again
    assert sum(summary["pools"].values()) == pytest.approx(len(record.machines) * record.emulated_s)
    return summary


def test_a_run_with_evictions_pauses_and_a_death():
    rng = np.random.default_rng(5)
    arrivals = np.cumsum(rng.exponential(0.15, 60))
    requests = [(float(at_s), int(rng.integers(4, 40)), int(rng.integers(1, 60))) for at_s in arrivals]
    summary = check_against_listed_tokens(run_cluster(("m0", "m1", "m2"), requests, faults=[(1, 4.0)]))
    assert summary["evicted"] > 0
    assert summary["paused"] > 0
    assert summary["restarted"] > 0
    assert summary["tokens"]["recomputed"] > 0
    assert summary["machines_died"] == ["m1"]
    assert summary["requests"]["finished"] == 60


request_lists = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=12).map(
    sorted
)
clusters = st.sampled_from([("m0", "m1"), ("p0", "d0"), ("p0", "p1", "d0"), ("m0",)])


@settings(deadline=None, max_examples=60)
@given(clusters, request_lists, st.lists(st.tuples(st.integers(0, 1), st.floats(0, 4)), max_size=2), st.integers(12, 60))
def test_any_run(machine_names, requests, faults, num_kv_blocks):
    faults = [(machine % len(machine_names), at_s) for machine, at_s in faults]
    check_against_listed_tokens(run_cluster(machine_names, requests, num_kv_blocks, faults, max_drain_s=20.0))


@pytest.mark.parametrize(
    ("arrivals_s", "offered", "completed"),
    [((30.0, 31.0), 2.0, 2 / 2.0), ((30.0,), None, 1 / 1.0), ((30.0, 30.0), None, 2 / 2.0)],
)
def test_rates_count_from_the_first_arrival_and_a_burst_has_no_offered_rate(arrivals_s, offered, completed):
    facts = [(at_s, RequestPlaced(number, 1, 0, 0)) for number, at_s in enumerate(arrivals_s)]
    for number in range(len(arrivals_s)):
        at_s = 31.0 + number
        facts += [prefill(0, at_s - 0.5, at_s, (number, 1, 10, 0), finished=(number,)), (at_s, RequestEnded(number, 1, ""))]
    columns = recorded([(at_s, 10, 1) for at_s in arrivals_s], facts).columns()
    assert offered_rps(columns) == offered
    assert completed_rps(columns) == completed
