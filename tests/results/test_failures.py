"""Failed requests by cause, and what they mean for the verdict and for saturation."""

import numpy as np
import pytest
from facts import recorded, run_cluster, run_record, summary_of

from emu.core.facts import RequestEnded
from emu.results.distribution import distribution, p99_name, percentile
from emu.results.failures import grouped_failures
from emu.results.report.curve import Curve
from emu.results.terminal import print_summary


def test_causes_that_differ_in_numbers_alone_are_one():
    ends = [(0, "900 tokens do not fit"), (1, ""), (2, "no machine is left alive"), (3, "2,000 tokens do not fit")]
    requests = [(float(request), 8, 1) for request, _ in ends]
    run = recorded(requests, [(10.0 + request, RequestEnded(request, 1, cause)) for request, cause in ends])
    assert grouped_failures(run.columns().requests) == [
        {"cause": "900 tokens do not fit", "count": 2, "first_request": 0},
        {"cause": "no machine is left alive", "count": 1, "first_request": 2},
    ]


def test_a_run_in_which_requests_were_refused_says_which_and_why(capsys):
    # 40 blocks of 4 tokens, of which at most 19 are held for hand-overs: 100 tokens never fit, 20 do.
    summary = summary_of(run_cluster(("p0", "d0"), [(0.0, 100, 5), (0.1, 20, 5), (0.2, 100, 5)]))
    [failure] = summary["failures"]
    assert (failure["count"], failure["first_request"]) == (2, 0)
    assert summary["verdict"] == "INVALID"
    assert summary["verdict_reasons"] == ["2 of 3 requests failed: 66.67% (limit 1.00%)"]
    print_summary(summary)
    out = capsys.readouterr().out
    assert f"failed    2 {failure['cause']} (first: request 0)" in out


def test_what_was_refused_is_no_waiting_work():
    refused = summary_of(run_cluster(("p0", "d0"), [(0.0, 20, 5), *((1.0 + i, 100, 5) for i in range(9))]))
    assert not refused["saturated"]


def test_what_waits_at_the_end_still_is():
    # A prompt takes 0.1 s and one arrives each 10 ms.
    summary = summary_of(run_cluster(("m0",), [(i / 100, 100, 2) for i in range(60)], max_drain_s=1.0))
    num_failed = summary["requests"]["failed"]
    assert summary["saturated"] and num_failed > 30
    assert (summary["verdict"], summary["verdict_reasons"]) == (
        "DEGRADED",
        [f"saturated: {num_failed} of 60 requests were unfinished at the end"],
    )


def test_all_machines_dead_is_invalid_although_it_was_planned():
    run = run_cluster(("p0", "d0"), [(0.1 * i, 20, 4) for i in range(30)], faults=[(0, 1.0), (1, 1.0)])
    summary = summary_of(run)
    [failure] = summary["failures"]
    assert summary["verdict"] == "INVALID" and 0 < summary["requests"]["finished"] < 30
    assert failure["cause"] == "no machine is left alive"
    assert failure["count"] == summary["requests"]["failed"] == 30 - summary["requests"]["finished"]


def test_a_death_that_every_request_survives_stays_valid():
    run = run_cluster(("p0", "d0", "d1"), [(0.1 * i, 20, 4) for i in range(30)], faults=[(1, 1.0)])
    assert (summary_of(run)["verdict"], summary_of(run)["failures"]) == ("VALID", [])


def test_every_percentile_is_interpolated():
    values = np.array([1.0, 2.0, 10.0])
    assert percentile(values, 99) == distribution(values)["p99"] == Curve.of(values).percentile(99) == pytest.approx(9.84)


@pytest.mark.parametrize(
    ("num_requests", "name"), [(0, "p99 of 0 requests"), (1, "p99 of 1 request"), (99, "p99 of 99 requests"), (100, "p99")]
)
def test_p99_of_few_requests_is_marked(num_requests, name):
    assert p99_name(num_requests) == name


def test_the_terminal_marks_p99_of_few(capsys):
    print_summary(summary_of(run_cluster(("p0", "d0"), [(0.0, 20, 5), (0.1, 20, 5)])))
    assert "p99 of 2 requests" in capsys.readouterr().out


def test_a_run_without_failures_has_none():
    assert summary_of(run_record(recorded([(0, 8, 1)], [])))["failures"] == []
