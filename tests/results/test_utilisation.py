"""How busy machines were and with how many tokens, by hand."""

import numpy as np
import pytest
from facts import decode, prefill, recorded, run_record

from emu.core.facts import PoolChanged, TokensEmitted
from emu.results.cost import alive_seconds
from emu.results.utilisation import seconds_by_tokens, utilisation


def run():
    """p0: 2 s with 3 tokens, 1 s with 5. d0: 6 s with 2 decodes, 3 s with 1. d1 dead at 4 of 12 s, busy for 1 s with 1."""
    return run_record(
        recorded(
            [(0.0, 3, 9), (0.0, 5, 9), (0.0, 4, 9)],
            [
                prefill(0, 0.0, 2.0, (0, 1, 3, 0)),
                prefill(0, 2.0, 3.0, (1, 1, 5, 0)),
                decode(1, 3.0, [5.0, 9.0], (0, 1, 3, 1), (1, 1, 5, 1), finished=(0,), num_decodes=2),
                decode(1, 9.0, [12.0]),
                decode(2, 0.0, [1.0], (2, 1, 4, 1)),
                (4.0, PoolChanged(2, "dead")),
            ],
        ),
        emulated_s=12.0,
    )


def of(record):
    columns = record.recorder.columns()
    return utilisation(record, columns, alive_seconds(record, columns))


def by_tokens(columns, *machines):
    return dict(zip(*(column.tolist() for column in seconds_by_tokens(columns, np.array(machines))), strict=True))


def test_busy_shares():
    result = of(run())
    assert result["machines"] == {"p0": pytest.approx(3 / 12), "d0": pytest.approx(9 / 12), "d1": pytest.approx(1 / 4)}
    assert result["roles"] == {"prefill": pytest.approx(3 / 12), "decode": pytest.approx(10 / 16)}


def test_time_by_active_tokens():
    columns = run().recorder.columns()
    assert by_tokens(columns, True, False, False) == {3: 2, 5: 1}
    assert by_tokens(columns, False, True, True) == {1: 3 + 1, 2: 6}
    assert by_tokens(columns, True, True, True) == {1: 4, 2: 6, 3: 2, 5: 1}
    # p50: 4 of 10 s are with one token, so half the time lies at two or fewer.
    assert of(run())["batch_tokens"] == {
        "prefill": {"mean": pytest.approx(11 / 3), "p50": 3, "p90": 5, "p99": 5, "max": 5},
        "decode": {"mean": pytest.approx(1.6), "p50": 2, "p90": 2, "p99": 2, "max": 2},
    }


def test_a_mixed_step_counts_its_prompts_and_its_decodes():
    batch = decode(0, 0.0, [4.0], (0, 1, 3, 1)).batch
    mixed = batch._replace(prefills=prefill(0, 0, 1, (1, 1, 7, 0)).batch.prefills)
    record = run_record(recorded([(0.0, 3, 9), (0.0, 7, 9)], [TokensEmitted(0, 0.0, (4.0,), mixed, ())], 1), ("m0",))
    assert by_tokens(record.recorder.columns(), True) == {8: 4.0}


def test_a_step_of_two_billion_tokens_takes_no_more_memory_than_another():
    record = run_record(
        recorded([(0.0, 2**31 - 1, 1)], [prefill(0, 0.0, 4.0, (0, 1, 2**31 - 1, 0), finished=(0,))], 1), ("m0",)
    )
    assert by_tokens(record.recorder.columns(), True) == {2**31 - 1: 4.0}
    assert of(record)["batch_tokens"]["mixed"]["p50"] == 2**31 - 1


def test_machines_that_never_ran():
    result = of(run_record(recorded([(0.0, 3, 9)], []), emulated_s=0.0))
    assert result["machines"] == {"p0": None, "d0": None, "d1": None}
    assert result["roles"] == {"prefill": None, "decode": None}
    assert result["batch_tokens"]["decode"] == dict.fromkeys(("mean", "p50", "p90", "p99", "max"))
