import json
import subprocess
import sys

import pytest

COMMAND = (sys.executable, "-m", "emu", "compare")


def figures(mean):
    return {"mean": mean, "p50": 0.1, "p90": 0.2, "p99": 0.3, "max": None}


def summary(mean=0.1, finished=100, verdict="VALID", measured=100):
    latencies = ("ttft_s", "tbt_s", "tpot_s", "e2e_s", "queue_s", "second_token_gap_s", "decode_start_gap_s")
    return {
        "verdict": verdict,
        "saturated": False,
        "runtime": "virtual",
        "seed": 0,
        "model": "llama2_70b",
        "measured_requests": measured,
        "requests": {"submitted": 100, "finished": finished, "failed": 0},
        "tokens": {"prompt": 1000, "output": 2000, "recomputed": 0},
        **{key: figures(mean) for key in latencies},
        "offered_rps": 9.0,
        "completed_rps": 8.0,
        "kv": {"transfers": 100, "bytes_modelled": 12_000_000, "bytes_moved": 0},
        "paused": 0,
        "evicted": 0,
        "restarted": 0,
        "late": {"messages": {"count": 5000, "late": 3}, "wakeups": {"count": 700, "late": 650}},
        "timing": {"extrapolated_steps": 0},
        "emulated_s": 30.0,
        "events": 1234,
    }


@pytest.mark.parametrize(
    ("measured", "name"),
    [
        ((100, 2000), "ttft p99 ms"),
        ((29, 29), "ttft p99 of 29 requests ms"),
        ((29, 400), "ttft p99 of 29 requests and p99 ms"),
        ((0, 1), "ttft p99 of 0 requests and p99 of 1 request ms"),
    ],
)
def test_p99_of_few_requests_is_marked(compare, measured, name):
    code, text, _ = compare(*(summary(measured=number) for number in measured))
    assert (code, cells(text, name)) == (0, ["300.000", "300.000", "="])


@pytest.fixture
def compare(tmp_path):
    """Compare two summaries, each a dictionary, a text, or None for no file: (exit code, stdout, stderr)."""

    def run(*summaries):
        folders = []
        for name, content in zip("ab", summaries, strict=True):
            folders.append(tmp_path / name)
            folders[-1].mkdir()
            if content is not None:
                text = content if isinstance(content, str) else json.dumps(content)
                (folders[-1] / "summary.json").write_text(text)
        done = subprocess.run([*COMMAND, *folders], capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr.replace(str(tmp_path), "")

    return run


def cells(text, name):
    [line] = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return line.removeprefix(name).split()


def test_side_by_side_with_the_difference(compare):
    code, text, _ = compare(summary(), summary(mean=0.102, finished=90, verdict="DEGRADED"))
    assert code == 0
    assert cells(text, "verdict") == ["VALID", "DEGRADED"]
    assert cells(text, "ttft mean ms") == ["100.000", "102.000", "+2.000", "+2.00", "%"]
    assert cells(text, "tbt p99 ms") == ["300.000", "300.000", "="]
    assert cells(text, "e2e max ms") == ["-", "-"]
    assert cells(text, "requests.finished") == ["100", "90", "-10", "-10.00", "%"]
    assert cells(text, "kv.bytes_modelled") == ["12,000,000", "12,000,000", "="]
    assert cells(text, "late.messages.late") == ["3", "3", "="]
    assert cells(text, "completed_rps") == ["8.000", "8.000", "="]


def test_from_nothing_there_is_no_percentage(compare):
    code, text, _ = compare(summary(mean=0.0), summary(mean=0.001))
    assert code == 0
    assert cells(text, "queue mean ms") == ["0.000", "1.000", "+1.000"]


@pytest.mark.parametrize(
    ("second", "line"),
    [
        (None, "emu compare: /b/summary.json: No such file or directory; expected the directory of a run that has ended\n"),
        ("{", "emu compare: /b/summary.json: not a summary: Expecting property name enclosed in double quotes: line 1"),
        ("[1]", "emu compare: /b/summary.json: not a summary: expected an object\n"),
        ({"verdict": "VALID"}, "emu compare: /b/summary.json: runtime is missing; expected the summary of a run\n"),
        (summary() | {"paused": "no"}, "emu compare: /b/summary.json: paused='no'; expected a number\n"),
        (summary() | {"ttft_s": 3}, "emu compare: /b/summary.json: ttft_s.mean is missing; expected the summary of a run\n"),
    ],
)
def test_wrong_input_is_one_clear_line(compare, second, line):
    code, text, errors = compare(summary(), second)
    assert (code, text) == (2, "")
    assert errors.startswith(line)
    assert errors.count("\n") == 1


def test_both_runs_must_be_named():
    done = subprocess.run([*COMMAND, "runs/a"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "the following arguments are required: RUN_B" in done.stderr


def test_illustrative_runs_are_compared_and_marked(compare):
    line = "timing=constant is not a measurement: latencies, service levels and cost are illustrative"
    one, other = (summary(verdict="ILLUSTRATIVE") for _ in range(2))
    one["timing"]["illustrative"] = other["timing"]["illustrative"] = line
    code, out, _ = compare(one, other)
    assert code == 0 and out.splitlines()[:2] == [f"A is illustrative: {line}", f"B is illustrative: {line}"]
    assert "predicts nothing" not in out and cells(out, "verdict") == ["ILLUSTRATIVE", "ILLUSTRATIVE"]


def test_an_illustrative_run_beside_another_is_said_to_tell_nothing(compare):
    other = summary(verdict="DEGRADED")
    other["timing"]["illustrative"] = "timing=mine is none"
    code, out, _ = compare(summary(), other)
    assert code == 0 and out.splitlines()[:2] == [
        "B is illustrative: timing=mine is none",
        "one of them is illustrative and the other is not: a difference between their figures predicts nothing",
    ]
