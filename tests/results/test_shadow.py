"""Real machines beside their timing models, by hand: 1 ms a prompt token and 30 ms a decode step are predicted."""

from dataclasses import replace

import numpy as np
import pytest
from facts import LIMITS, cluster_of, recorded, run_record, summary_of

from emu.core.batch import Batch, DecodeJoin, Prefill
from emu.core.facts import TokensEmitted
from emu.core.timing.constant import ConstantTiming
from emu.results.shadow import WINDOW_STEPS, shadows
from emu.results.verdict import Findings, judge

STEP_S = 0.03


class StatedTiming(ConstantTiming):
    """States an error of 6 %, or what `errors` gives by the number of decodes."""

    def __init__(self, errors=None):
        super().__init__(0.001, STEP_S)
        self.errors = errors

    def relative_error(self, prompt_tokens, num_seqs, context_tokens):
        return 0.06 if self.errors is None else self.errors.get(num_seqs)


class NoStatedError(ConstantTiming):
    def __init__(self):
        super().__init__(0.001, STEP_S)


def decodes(machine, start_s, durations_s, num_decodes=1):
    """One run of decode steps that took so long."""
    ends_s = tuple((start_s + np.cumsum(durations_s)).tolist())
    return TokensEmitted(
        machine, start_s, ends_s, Batch((), (DecodeJoin(0, 1, 8, 1),), (), num_decodes, 9 * num_decodes, 0), ()
    )


def prompts(machine, start_s, duration_s, *chunks, num_decodes=0):
    """One step with these chunks: (tokens, tokens of the same prompt before) each."""
    prefills = tuple(Prefill(0, 1, num_tokens, 0, num_before) for num_tokens, num_before in chunks)
    return TokensEmitted(
        machine, start_s, (start_s + duration_s,), Batch(prefills, (), (), num_decodes, 9 * num_decodes, 0), ()
    )


def real_run(facts, real=(0,), timing=None, **changes):
    cluster = cluster_of(("p0", "d0", "d1"))
    machines = tuple(replace(machine, timing=timing or StatedTiming()) for machine in cluster.machines)
    recorder = recorded([(0, 8, 10_000)], facts)
    return run_record(recorder, cluster=replace(cluster, machines=machines), real=real, **changes)


def shadow_of(facts, **changes):
    record = real_run(facts, **changes)
    [shadow] = shadows(record, record.recorder.columns())
    return shadow


def verdict(facts, **changes):
    record = real_run(facts, **changes)
    columns = record.recorder.columns()
    requests = {"submitted": 1, "finished": 1, "failed": 0}
    found = Findings(requests, [], False, 0, np.empty(0), len(columns.steps), 0, [], shadows(record, columns))
    judged = judge(LIMITS, record, found)
    return judged.verdict, judged.reasons


def test_a_machine_exactly_as_predicted_does_not_drift():
    shadow = shadow_of([decodes(0, 0.5, [STEP_S] * 120)])
    assert shadow.ratio == pytest.approx(np.ones(120), abs=1e-9)
    assert shadow.worst_window.drift == pytest.approx(0.0, abs=1e-9)
    assert shadow.worst_window.num_steps == WINDOW_STEPS
    assert shadow.worst_window.stated_error == pytest.approx(0.06)
    assert verdict([decodes(0, 0.5, [STEP_S] * 120)]) == ("VALID", [])


def test_only_real_machines_have_a_shadow_and_it_is_of_their_own_steps():
    facts = [decodes(0, 0.0, [STEP_S] * 20), decodes(1, 0.0, [2 * STEP_S] * 30), decodes(2, 0.0, [STEP_S] * 40)]
    record = real_run(facts, real=(1,))
    [shadow] = shadows(record, record.recorder.columns())
    assert shadow.machine == "d0"
    assert shadow.ratio == pytest.approx(np.full(30, 2.0))
    assert verdict(facts, real=()) == ("VALID", [])


def test_each_kind_of_step_is_told_by_itself():
    facts = [
        prompts(0, 0.0, 0.012, (8, 0), (4, 0)),
        prompts(0, 1.0, 0.024, (8, 0), (4, 0)),
        prompts(0, 2.0, 0.012 + 2 * STEP_S, (12, 0), num_decodes=3),
        decodes(0, 3.0, [3 * STEP_S] * 3, num_decodes=2),
    ]
    shadow = shadow_of(facts)
    assert shadow.ratio == pytest.approx([1.0, 2.0, (0.012 + 2 * STEP_S) / (0.012 + STEP_S), 3.0, 3.0, 3.0])
    assert [shadow.median(kind) for kind in range(3)] == pytest.approx([1.5, 3.0, (0.012 + 2 * STEP_S) / (0.012 + STEP_S)])
    assert shadow.start_s == pytest.approx([0.0, 1.0, 2.0, 3.0, 3.09, 3.18])
    assert shadow.worst_window is None  # of six steps


class AttendingTiming(StatedTiming):
    """The quadratic part of a prompt: a later chunk takes longer."""

    def prefill_s(self, prompt_tokens):
        return sum(0.001 * num + 0.0001 * num * num for num in prompt_tokens)


def test_a_chunk_is_predicted_with_the_chunks_before_it():
    timing = AttendingTiming()
    whole_s = timing.prefill_s([30])
    facts = [prompts(0, 0.0, timing.prefill_s([10]), (10, 0)), prompts(0, 1.0, whole_s - timing.prefill_s([10]), (20, 10))]
    assert shadow_of(facts, timing=timing).ratio == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("num_slow", [50, 51, 400])
def test_a_machine_slowed_by_half_is_noticed_within_50_steps(num_slow):
    facts = [decodes(0, 0.0, [STEP_S] * 40), decodes(0, 40 * STEP_S, [1.5 * STEP_S] * num_slow)]
    window = shadow_of(facts).worst_window
    assert window.drift == pytest.approx(0.5)
    assert window.start_s <= 1.2 + 24 * 0.045 and window.num_steps == 50  # no later than where half of it is slow
    reason, *_ = verdict(facts)[1]
    assert reason.startswith("p0 takes 1.50 x as long as its timing model says, in 50 steps from ")
    assert reason.endswith(" s on (stated error 6 %)")


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.05, "VALID"), (0.95, "VALID"), (1.07, "DEGRADED"), (0.93, "DEGRADED"), (1.25, "INVALID")]
)
def test_drift_is_judged_by_the_stated_error(factor, expected):
    assert verdict([decodes(0, 0.0, [factor * STEP_S] * 60)])[0] == expected


@pytest.mark.parametrize(
    ("num_slow", "factor", "expected"), [(45, 1.1, "VALID"), (45, 1.11, "DEGRADED"), (75, 1.07, "DEGRADED")]
)
def test_the_worst_window_may_be_farther_off_than_the_median_of_all(num_slow, factor, expected):
    """The stated error is 6 %; of the worst of many windows 10.2 % are expected now and then."""
    facts = [decodes(0, 0.0, [STEP_S] * 55), decodes(0, 55 * STEP_S, [factor * STEP_S] * num_slow)]
    judged, reasons = verdict(facts)
    assert judged == expected
    assert len(reasons) == (expected != "VALID")


def test_a_pause_of_the_host_is_no_drift():
    durations_s = np.full(200, STEP_S)
    durations_s[[30, 90, 91, 92, 150]] *= 100
    facts = [decodes(0, 0.0, durations_s)]
    assert shadow_of(facts).worst_window.drift == pytest.approx(0.0, abs=1e-9)
    assert verdict(facts) == ("VALID", [])


def test_without_a_stated_error_a_drift_is_told_and_not_judged():
    facts = [decodes(0, 0.0, [2 * STEP_S] * 60)]
    window = shadow_of(facts, timing=NoStatedError()).worst_window
    assert (window.drift, window.stated_error) == (pytest.approx(1.0), None)
    assert verdict(facts, timing=NoStatedError()) == ("VALID", [])


def test_steps_without_a_stated_error_are_left_out_where_others_have_one():
    timing = StatedTiming({1: 0.1, 2: None})
    facts = [decodes(0, 0.0, [STEP_S] * 40), decodes(0, 1.2, [9 * STEP_S] * 60, num_decodes=2)]
    window = shadow_of(facts, timing=timing).worst_window
    assert (window.drift, window.num_steps) == (pytest.approx(0.0, abs=1e-9), 40)
    assert verdict(facts, timing=timing) == ("VALID", [])


def test_the_worst_window_is_the_one_farthest_beyond_its_own_error():
    timing = StatedTiming({1: 0.01, 2: 0.5})
    facts = [decodes(0, 0.0, [1.03 * STEP_S] * 50), decodes(0, 2.0, [1.3 * STEP_S] * 100, num_decodes=2)]
    window = shadow_of(facts, timing=timing).worst_window
    assert (window.drift, window.start_s) == (pytest.approx(0.03), 0.0)
    assert verdict(facts, timing=timing)[0] == "DEGRADED"


def test_fewer_steps_than_a_window_are_one_and_ten_at_least():
    assert shadow_of([decodes(0, 0.0, [2 * STEP_S] * 9)]).worst_window is None
    window = shadow_of([decodes(0, 0.0, [2 * STEP_S] * 10)]).worst_window
    assert (window.drift, window.num_steps, window.start_s) == (pytest.approx(1.0), 10, 0.0)


def test_windows_computed_in_parts_are_all_there(monkeypatch):
    facts = [decodes(0, 0.0, [STEP_S] * 70), decodes(0, 70 * STEP_S, [1.5 * STEP_S] * 50)]
    whole = shadow_of(facts).worst_window
    monkeypatch.setattr("emu.results.shadow.WINDOWS_AT_ONCE", 3)
    assert shadow_of(facts).worst_window == whole


def test_a_real_machine_with_fewer_blocks_than_declared_is_invalid():
    facts = [decodes(0, 0.0, [STEP_S] * 20)]
    assert verdict(facts, num_kv_blocks_had={0: 99}) == ("INVALID", ["p0 has 99 of the 100 KV blocks declared"])
    assert verdict(facts, num_kv_blocks_had={0: 100}) == ("VALID", [])


def test_the_summary_tells_of_real_machines_and_only_where_there_are_any():
    facts = [prompts(0, 0.0, 0.02, (10, 0)), decodes(0, 0.5, [STEP_S] * 9)]
    assert summary_of(real_run(facts, real=(0, 2)))["shadow"] == {
        "p0": {
            "steps": 10,
            "ratio": {"all": pytest.approx(1.0), "prefill": pytest.approx(2.0), "decode": pytest.approx(1.0), "mixed": None},
            "worst_window": {
                "drift": pytest.approx(0.0, abs=1e-9),
                "num_steps": 10,
                "start_s": 0.0,
                "stated_error": pytest.approx(0.06),
            },
        },
        "d1": {
            "steps": 0,
            "ratio": dict.fromkeys(("all", "prefill", "decode", "mixed")),
            "worst_window": dict.fromkeys(("drift", "num_steps", "start_s", "stated_error")),
        },
    }
    assert "shadow" not in summary_of(real_run(facts, real=()))
