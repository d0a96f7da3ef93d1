import numpy as np
import pytest
from facts import LIMITS, recorded, run_record

from emu.core.facts import KILLED_BY_FAULTS, drain_cause
from emu.core.setting import SettingError
from emu.results.run_record import Fidelity, KVStats
from emu.results.verdict import Findings, VerdictLimits, judge

ON_TIME = dict(message_late_s=np.zeros(100), wakeup_late_s=np.full(100, 0.001))


def fidelity(foreign_cores=0.0, clock_error_s=0.0, **late):
    return Fidelity(**(ON_TIME | late), foreign_cores=foreign_cores, clock_error_s=clock_error_s, dilation=1.0)


ALL_FINISHED = {"submitted": 1000, "finished": 1000, "failed": 0}
GAVE_UP = drain_cause(120.0)


def verdict(
    num_transfers=0,
    overrun_s=(),
    num_steps=1000,
    num_extrapolated=0,
    broken=(),
    requests=ALL_FINISHED,
    failures=(),
    saturated=False,
    **record,
):
    record = run_record(recorded([(0, 8, 1)], []), **record)
    counts = (num_transfers, np.array(overrun_s), num_steps, num_extrapolated, list(broken))
    judged = judge(LIMITS, record, Findings(requests, list(failures), saturated, *counts))
    return judged.verdict, judged.reasons


def failed(*failures, num_requests=1000):
    """The arguments of `verdict` for a run of so many requests with these failures: (count, cause) each."""
    num_failed = sum(count for count, _ in failures)
    requests = {"submitted": num_requests, "finished": num_requests - num_failed, "failed": num_failed}
    groups = [{"cause": cause, "count": count, "first_request": 0} for count, cause in failures]
    return dict(requests=requests, failures=groups)


@pytest.mark.parametrize(
    ("run", "expected", "reason"),
    [
        (failed((1, "refused")), "DEGRADED", "1 of 1,000 requests failed: 0.10% (limit 1.00%)"),
        (failed((4, "refused"), (5, GAVE_UP)), "DEGRADED", "9 of 1,000 requests failed: 0.90% (limit 1.00%)"),
        (failed((10, "refused")), "INVALID", "10 of 1,000 requests failed: 1.00% (limit 1.00%)"),
        (failed((10, "no machine is left alive")), "INVALID", "10 of 1,000 requests failed: 1.00% (limit 1.00%)"),
        (failed((900, f"machine 0 died: {KILLED_BY_FAULTS}")), "VALID", None),
        (failed((900, GAVE_UP)), "INVALID", "900 of 1,000 requests failed: 90.00% (limit 1.00%)"),
        (
            failed((900, GAVE_UP)) | dict(saturated=True),
            "DEGRADED",
            "saturated: 900 of 1,000 requests were unfinished at the end",
        ),
    ],
)
def test_failed_requests_count_unless_a_fault_or_saturation_explains_them(run, expected, reason):
    assert verdict(**run) == (expected, [reason] if reason else [])


def test_a_run_that_finished_nothing_is_invalid_whatever_the_causes():
    judged, reasons = verdict(**failed((1000, GAVE_UP)), saturated=True)
    assert (judged, reasons[0]) == ("INVALID", f"none of 1,000 requests finished: {GAVE_UP}")


def late(p99_ms, max_ms):
    """200 entries whose 99th percentile is between two equal ones."""
    return np.array([0.0] * 190 + [p99_ms / 1e3] * 9 + [max_ms / 1e3])


@pytest.mark.parametrize(
    ("measured", "expected", "reason"),
    [
        ({}, "VALID", None),
        (dict(message_late_s=late(4.9, 249)), "VALID", None),
        (dict(message_late_s=late(5, 200)), "DEGRADED", "messages late at p99: 5.00 ms (limit 5.00 ms)"),
        (dict(message_late_s=late(20, 200)), "DEGRADED", "messages late at p99: 20.00 ms (limit 5.00 ms)"),
        (dict(message_late_s=late(20.1, 200)), "INVALID", "messages late at p99: 20.10 ms (limit 5.00 ms)"),
        (dict(message_late_s=late(1, 999)), "DEGRADED", "messages late at most: 999.00 ms (limit 250.00 ms)"),
        (dict(message_late_s=late(1, 1001)), "INVALID", "messages late at most: 1,001.00 ms (limit 250.00 ms)"),
        (dict(wakeup_late_s=late(6, 200)), "DEGRADED", "wake-ups late at p99: 6.00 ms (limit 5.00 ms)"),
        (dict(wakeup_late_s=late(1, 300)), "DEGRADED", "wake-ups late at most: 300.00 ms (limit 250.00 ms)"),
        (dict(message_late_s=np.empty(0), wakeup_late_s=np.empty(0)), "VALID", None),
        (dict(foreign_cores=0.49), "VALID", None),
        (dict(foreign_cores=1.5), "DEGRADED", "CPU used by other processes: 1.50 cores (limit 0.50 cores)"),
        (dict(foreign_cores=2.5), "INVALID", "CPU used by other processes: 2.50 cores (limit 0.50 cores)"),
        (dict(clock_error_s=0.003), "DEGRADED", "clock error between nodes: 3.00 ms (limit 1.00 ms)"),
        (dict(clock_error_s=0.005), "INVALID", "clock error between nodes: 5.00 ms (limit 1.00 ms)"),
    ],
)
def test_rules_on_the_host(measured, expected, reason):
    assert verdict(fidelity=fidelity(**measured)) == (expected, [reason] if reason else [])


@pytest.mark.parametrize(
    ("num_extrapolated", "expected", "reasons"),
    [
        (49, "VALID", []),
        (50, "DEGRADED", ["steps outside the profiled range: 5.00% (limit 5.00%)"]),
        (200, "DEGRADED", ["steps outside the profiled range: 20.00% (limit 5.00%)"]),
        (201, "INVALID", ["steps outside the profiled range: 20.10% (limit 5.00%)"]),
    ],
)
def test_extrapolated_steps_count_on_any_host(num_extrapolated, expected, reasons):
    assert verdict(num_extrapolated=num_extrapolated) == (expected, reasons)
    assert verdict(num_extrapolated=num_extrapolated, fidelity=fidelity()) == (expected, reasons)


def test_no_steps_are_no_extrapolation():
    assert verdict(num_steps=0) == ("VALID", [])


def test_every_failed_rule_is_a_line_and_the_worst_decides():
    measured = fidelity(foreign_cores=9, clock_error_s=0.002, message_late_s=late(6, 7))
    assert verdict(num_extrapolated=60, fidelity=measured) == (
        "INVALID",
        [
            "messages late at p99: 6.00 ms (limit 5.00 ms)",
            "CPU used by other processes: 9.00 cores (limit 0.50 cores)",
            "clock error between nodes: 2.00 ms (limit 1.00 ms)",
            "steps outside the profiled range: 6.00% (limit 5.00%)",
        ],
    )


def test_an_unverified_transfer_is_invalid_where_bytes_move():
    moved = KVStats(payload_scale=0.5, verified=8)
    assert verdict(10, np.zeros(8), kv=moved) == ("INVALID", ["2 of 10 KV transfers were not verified (limit 0)"])
    assert verdict(8, np.zeros(8), kv=KVStats(payload_scale=0.5, verified=8, incidents={"corrupt": 3})) == ("VALID", [])
    assert verdict(10, kv=KVStats()) == ("VALID", [])


@pytest.mark.parametrize(("late_ms", "expected"), [(49, "VALID"), (51, "DEGRADED"), (200, "DEGRADED"), (201, "INVALID")])
def test_bytes_that_do_not_keep_up_with_the_model_count(late_ms, expected):
    late = "KV payloads later than modelled at p99 (2% of them by more than 5.00 ms)"
    reason = f"{late}: {late_ms:.2f} ms (limit 50.00 ms)"
    overrun_s = np.array([0.0] * 98 + [late_ms / 1e3] * 2)
    assert verdict(overrun_s=overrun_s) == (expected, [] if expected == "VALID" else [reason])


def test_broken_invariants_and_interruptions_are_invalid():
    line = "invariant 1: every request ends exactly once: not so for 1, the first request 3"
    assert verdict(broken=[line]) == ("INVALID", [line])
    assert verdict(interrupted="Ctrl-C") == ("INVALID", ["interrupted: Ctrl-C"])
    assert verdict(interrupted="Ctrl-C", num_extrapolated=60)[0] == "INVALID"


def test_a_limit_that_cannot_be_one():
    settings = {name: getattr(LIMITS, name) for name in VerdictLimits.__slots__}
    with pytest.raises(SettingError, match=r"^verdict\.late_max_s=0: expected a number > 0$"):
        VerdictLimits(**(settings | {"late_max_s": 0}))
    with pytest.raises(SettingError, match=r"^verdict\.extrapolated_share=5: expected a number from 0 to 1$"):
        VerdictLimits(**(settings | {"extrapolated_share": 5}))
