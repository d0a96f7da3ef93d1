"""Two kinds of runs of one workload beside each other, by hand."""

import numpy as np
import pytest
from facts import decode, prefill, recorded, run_record, summary_of

from emu.core.facts import RequestEnded, RequestPlaced
from emu.results.agreement import METRICS, AgreementError, RunResults, agreement, correlation, read_results
from emu.results.requests_file import write_requests
from emu.results.summary import write_summary

NAN = float("nan")


def results(seconds, interval=None):
    """A run whose requests took `seconds`, by every metric."""
    summary = {}
    if interval:
        ends = dict(zip(("low", "high"), interval, strict=True))
        summary["interval"] = {metric: dict.fromkeys(("mean", "p50", "p99"), ends) for metric in METRICS}
    return RunResults(summary, dict.fromkeys(METRICS, np.array(seconds)))


def test_error_and_interval_of_a_pair():
    of_metric = agreement([results([0.1, 0.3])], [results([0.2, 0.3], interval=(0.15, 0.3))])["ttft_s"]
    assert of_metric["mean"] == {
        "real": pytest.approx(0.2),
        "emulated": pytest.approx(0.25),
        "error": pytest.approx(0.25),
        "errors": [pytest.approx(0.25)],
        "low": 0.15,
        "high": 0.3,
        "covers": True,
    }
    assert of_metric["p99"]["real"] == pytest.approx(0.298)
    assert of_metric["correlation"] == pytest.approx(1.0)
    for interval in ((0.21, 0.3), (0.1, 0.19)):
        figures = agreement([results([0.2, 0.2])], [results([0.25, 0.25], interval=interval)])
        assert figures["e2e_s"]["mean"]["covers"] is False


def test_of_several_runs_each_request_has_its_median():
    """A pause of the host met another request in each of the real runs."""
    real = [results([0.1, 0.2, 9.0]), results([0.1, 9.0, 0.3]), results([9.0, 0.2, 0.3])]
    emulated = [results([0.2, 0.4, 0.6], interval=(low, high)) for low, high in ((0.1, 0.5), (0.2, 0.6), (0.3, 0.7))]
    figure = agreement(real, emulated)["tpot_s"]["mean"]
    assert (figure["real"], figure["emulated"], figure["error"]) == (pytest.approx(0.2), pytest.approx(0.4), pytest.approx(1.0))
    assert figure["errors"][0] == pytest.approx(0.4 / 3.1 - 1)
    assert (figure["low"], figure["high"]) == (0.2, 0.6)


def test_without_an_interval_or_a_value_there_is_none():
    figure = agreement([results([0.2])], [results([0.2])])["ttft_s"]["mean"]
    assert (figure["error"], figure["low"], figure["covers"]) == (0.0, None, None)
    figure = agreement([results([NAN])], [results([0.2], interval=(0.1, 0.3))])["ttft_s"]["mean"]
    assert (figure["real"], figure["error"], figure["errors"], figure["covers"]) == (None, None, [None], None)


def test_a_request_that_finished_in_one_run_only_counts_with_that():
    figure = agreement([results([0.2, NAN]), results([0.2, 0.4])], [results([0.2, 0.4])] * 2)["e2e_s"]["mean"]
    assert (figure["real"], figure["error"]) == (pytest.approx(0.3), pytest.approx(0.0))


def test_correlation_is_over_the_requests_that_finished_in_both():
    one, other = np.array([1.0, 2.0, 3.0, NAN, 100.0]), np.array([2.0, 4.0, 6.0, 5.0, NAN])
    assert correlation(one, other) == pytest.approx(1.0)
    assert correlation(one, -other) == pytest.approx(-1.0)
    assert correlation(np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 1.0, 4.0, 3.0])) == pytest.approx(0.6)
    assert correlation(np.ones(3), np.arange(3.0)) is None
    assert correlation(np.array([NAN, 1.0]), np.array([1.0, NAN])) is None


def test_the_seconds_of_each_request_are_read_back(tmp_path):
    facts = [
        (0, RequestPlaced(0, 1, 0, 0)),
        prefill(0, 0, 1, (0, 1, 8, 0)),
        decode(0, 2, [3, 5], (0, 1, 8, 1), finished=(0,)),
        (5, RequestEnded(0, 1, "")),
        prefill(0, 6, 7, (1, 1, 8, 0), finished=(1,)),
        (7, RequestEnded(1, 1, "")),
        prefill(0, 8, 9, (2, 1, 8, 0)),
        (9, RequestEnded(2, 1, "killed")),
    ]
    record = run_record(recorded([(0.5, 8, 3), (6, 8, 1), (7, 8, 3)], facts))
    write_requests(record.recorder.columns().requests, tmp_path / "requests.parquet")
    write_summary(summary_of(record), tmp_path / "summary.json")
    assert np.isnan(read_results(tmp_path, 10.0).seconds["e2e_s"]).all()
    seconds = read_results(tmp_path, 0.5).seconds
    np.testing.assert_array_equal(seconds["ttft_s"], [0.5, 1.0, NAN])
    np.testing.assert_array_equal(seconds["tpot_s"], [2.0, NAN, NAN])
    np.testing.assert_array_equal(seconds["e2e_s"], [4.5, 1.0, NAN])


def test_a_run_that_did_not_end_cannot_be_compared(tmp_path):
    with pytest.raises(AgreementError, match=r"expected the directory of a run that has ended$"):
        read_results(tmp_path, 0.0)
