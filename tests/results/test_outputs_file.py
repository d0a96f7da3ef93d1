"""What real machines wrote: from the facts to outputs.jsonl, and what it changes in the tables."""

import json

import numpy as np
import pytest

from emu.core.facts import OutputWritten, RequestEnded, RequestPlaced, RequestRequeued
from emu.results.outputs_file import write_outputs
from tests.results.facts import decode, prefill, recorded, run_record, summary_of

SERVED = [
    (0, RequestPlaced(0, 1, 0, 0)),
    (0, RequestPlaced(1, 1, 0, 0)),
    prefill(0, 0, 1, (0, 1, 8, 0), (1, 1, 8, 0)),
    decode(0, 1, [2, 3], (0, 1, 8, 1), (1, 1, 8, 1), num_decodes=2, finished=(0, 1)),
    (3, OutputWritten(1, 1, (5, 6, 2), True)),
    (3, OutputWritten(0, 1, (7, 0, 151_935), False)),
    (3, RequestEnded(0, 1, "")),
    (3, RequestEnded(1, 1, "")),
]
ASKED = [(0, 8, 3), (0, 8, 50)]


def columns_of(facts, requests=ASKED):
    return recorded(requests, facts).columns()


def test_outputs_are_a_line_a_request(tmp_path):
    write_outputs(columns_of(SERVED).answers, tmp_path / "outputs.jsonl")
    lines = (tmp_path / "outputs.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"request": 0, "output_ids": [7, 0, 151_935], "stopped": False},
        {"request": 1, "output_ids": [5, 6, 2], "stopped": True},
    ]


def test_an_answer_that_stopped_was_asked_for_no_more_than_it_has():
    recorder = recorded(ASKED, SERVED)
    np.testing.assert_array_equal(recorder.columns().requests.output_tokens, [3, 3])
    np.testing.assert_array_equal(recorder.workload.output_tokens, [3, 50])
    summary = summary_of(run_record(recorder))
    assert not [reason for reason in summary["verdict_reasons"] if "invariant" in reason]
    assert summary["tokens"]["output"] == 6
    assert summary["tokens"]["lost"] == 0


@pytest.mark.parametrize("left_out", [SERVED[4:5], []])
def test_without_the_word_that_it_stopped_tokens_are_missing(left_out):
    facts = [fact for fact in SERVED if fact not in left_out]
    reasons = summary_of(run_record(recorded(ASKED, facts)))["verdict_reasons"]
    assert any("tokens out = tokens asked: not so for 1, the first request 1" in reason for reason in reasons) == bool(left_out)


def test_the_answer_of_an_attempt_that_was_lost_does_not_count():
    facts = [
        (0, RequestPlaced(0, 1, 0, 0)),
        prefill(0, 0, 1, (0, 1, 8, 0)),
        decode(0, 1, [2], (0, 1, 8, 1), finished=(0,)),
        (2, OutputWritten(0, 1, (4, 2), True)),  # and then it is declared dead, before the scheduler hears of the end
        (2, RequestRequeued(0, 1, False, "machine 0 died")),
        (2, RequestPlaced(0, 2, 1, 1)),
        prefill(1, 3, 4, (0, 2, 8, 0)),
        decode(1, 4, [5, 6], (0, 2, 8, 1), finished=(0,)),
        (6, RequestEnded(0, 2, "")),
    ]
    columns = columns_of(facts, [(0, 8, 3)])
    assert len(columns.answers) == 0
    assert columns.requests.output_tokens[0] == 3

    answered = [*facts[:-1], (6, OutputWritten(0, 2, (4, 4, 4), False)), facts[-1]]
    assert columns_of(answered, [(0, 8, 3)]).answers.token_ids == ((4, 4, 4),)
    told_late = [*answered, facts[3]]  # by another stream
    assert columns_of(told_late, [(0, 8, 3)]).answers.token_ids == ((4, 4, 4),)


def test_a_failed_request_has_no_answer():
    assert len(columns_of([*SERVED[:-1], (3, RequestEnded(1, 1, "time is up"))]).answers) == 1
