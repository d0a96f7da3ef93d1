"""Random whole configurations with one weird value each: they end in one line that names a key, or in a run that adds up.

What is drawn: options of some groups that go together, then a weird value for one of the keys that this configuration has.
EMU_FUZZ_EXAMPLES asks for another number of them, each time others.
"""

import json
import math
import os
import random
import re
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from emu import compose as composition
from emu.build import build, compose
from emu.cli.run import USER_ERRORS
from emu.config_error import explain
from emu.rehearse import rehearse

MAX_EXAMPLES = int(os.environ.get("EMU_FUZZ_EXAMPLES", "300"))
NUM_CONFIGURATIONS = 16
EXAMPLES = settings(
    max_examples=MAX_EXAMPLES,
    deadline=None,
    derandomize="EMU_FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
# The groups whose options need no wall clock, torch, file or measurement of this host, but for those left out.
GROUPS = (
    *("cluster", "machine", "model", "timing", "workload", "slo", "power", "verdict"),
    *("placement", "batching", "repurposing", "prediction", "transfer"),
)
LEFT_OUT = {
    *(("timing", "host"), ("model", "checkpoint"), ("workload", "trace")),
    *(("experiment", name) for name in ("mixed", "validate", "validate_disaggregated")),
}
SHORT = ["runtime=virtual", "results.report=false", "metrics.max_drain_s=20"]
SETTINGS = (
    *(
        "seed=1",
        "metrics.max_drain_s=0",
        "metrics.warmup_s=0.5",
        "machine.max_held_fraction=0",
        "workload.skip_impossible=true",
    ),
    *("faults=[{machine:d0,at_s:1}]", "faults=[{machine:p0,at_s:0},{machine:d0,at_s:1.5}]", "runtime.control_latency_s=3"),
)
SHORT_LOAD = {"rate_rps": "4", "duration_s": "2"}
FACTORS = (0.0, 0.25, 0.5, 0.99, 2.0, 3.0, 10.0, -1.0)  # of the number that is there
WEIRD = [
    *("0", "-1", "1", "2", "0.5", "1e-9", "5e-324", "1e-308", "1e9", "1e18", "1e300", "1e308"),
    *("2147483648", "9223372036854775808", "nan", "inf", "-inf", "true", "null", "''", "abc", "'12'"),
    *("[]", "[1]", "[[x]]", "{}", "{a:1}", "[{a:[1]}]", "'???'", "'${seed}'", "'${nowhere}'"),
    *("[{machine:p0,at_s:1e308}]", "[{machine:d0,at_s:0},{machine:d0,at_s:0}]", "[{machine:[p0],at_s:nan}]"),
    *("Überlast", "'mine\u202e'", '"<script>"', "'../../mine'", "{_target_:os.getcwd}", "[{_target_:os.getcwd}]"),
]
MAX_S = 60  # of one configuration, on the wall clock: more is an endless loop

PREFIXES = ("", "", "", "", "+", "++")  # of an override in Hydra's grammar
Choose = Callable[[Sequence[Any]], Any]


@contextmanager
def time_limit(seconds: int):
    def expired(*_):
        raise AssertionError(f"not done after {seconds} s")

    previous = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def options(group: str) -> list[str]:
    return [option for option in composition.options(group) if (group, option) not in LEFT_OUT]


def leaves(place: str, node: Any) -> dict[str, Any]:
    """The values of a part of the configuration, itself and its mappings included, by full name."""
    names = {place: node}
    for key, value in node.items() if isinstance(node, dict) else ():
        names |= leaves(f"{place}.{key}", value)
    return names


@cache
def whole_configuration(number: int) -> tuple[tuple[str, ...], dict[str, Any]]:
    """One of many configurations that run, as overrides and as a mapping: an option of some groups, as far as they go together.

    There are fewer of them than weird values, as Hydra takes its time to merge the files of each.
    """
    choose = random.Random(number).choice
    overrides = [*SHORT, *([f"experiment={choose(options('experiment'))}"] if choose(range(8)) == 0 else [])]
    config = good_configuration(overrides)
    groups = random.Random(number).sample(GROUPS, choose(range(5)))
    for more in (*(f"{group}={choose(options(group))}" for group in groups), choose(SETTINGS)):
        if found := good_configuration([*overrides, more]):
            overrides, config = [*overrides, more], found
    return config


def good_configuration(overrides: list[str]) -> tuple[tuple[str, ...], dict[str, Any]] | None:
    """The overrides with those for a load of a few requests, and what they make; None where they do not go together."""
    try:
        load = compose(overrides).workload
        overrides = (*overrides, *(f"workload.{key}={value}" for key, value in SHORT_LOAD.items() if key in load))
        config = compose(list(overrides))
        build(config)
    except USER_ERRORS:
        return None
    return overrides, OmegaConf.to_container(config, resolve=False)


def drawn(choose: Choose, numbers: Sequence[int]) -> list[str]:
    """The command line of one of these whole configurations with one weird value."""
    overrides, config = whole_configuration(choose(numbers))
    part = choose(sorted(config))
    values = leaves(part, config[part])
    key = choose(sorted(values))
    now = values[key]
    others = [type(now)(now * factor) for factor in FACTORS] if isinstance(now, int | float) else []
    return [*overrides, f"{choose(PREFIXES)}{key}={choose([*WEIRD, *others * 5])}"]


def assert_is_one_line(error: Exception, override: str) -> None:
    """One printable line that names the key, what it stands in, or the value."""
    line = explain(error)
    assert line and line.isprintable() and len(line) < 1000, line
    assert "Traceback" not in line and "object has no" not in line and "unexpected keyword" not in line, line
    key, _, value = override.lstrip("+").partition("=")
    if "requests fit no machine" in line:  # for which there may be many reasons: the line says what would fit
        return
    names = {*key.split("."), *re.findall(r"\w{3,}", value)}
    assert names & set(re.findall(r"\w+", line)), f"{line!r} names neither {key} nor {value}"


def assert_adds_up(summary: dict) -> None:
    requests = summary["requests"]
    assert requests["finished"] + requests["failed"] == requests["submitted"] == summary["workload"]["requests"]
    assert sum(failure["count"] for failure in summary["failures"]) == requests["failed"]
    assert requests["failed"] == 0 or summary["verdict"] != "VALID"
    assert (summary["verdict"] == "VALID") == (not summary["verdict_reasons"])
    assert all(math.isfinite(number) for number in numbers(summary)), summary
    json.dumps(summary, allow_nan=False)


def numbers(node: Any) -> list[float]:
    if isinstance(node, dict):
        return [number for value in node.values() for number in numbers(value)]
    if isinstance(node, list):
        return [number for value in node for number in numbers(value)]
    return [node] if isinstance(node, float) else []


def ends_as(overrides: list[str]) -> str:
    """Build and run as the command line does; "refused", "failed" or the run's verdict."""
    with time_limit(MAX_S), warnings.catch_warnings(), TemporaryDirectory() as folder:
        warnings.simplefilter("error")  # numpy's end on the user's stderr
        try:
            plan = build(compose(overrides))
        except USER_ERRORS as error:
            assert_is_one_line(error, overrides[-1])
            return "refused"
        assert plan.runtime.name == "virtual", "would start Ray"
        plan = replace(plan, results=plan.results.settled(False, in_sweep=True))
        try:
            summary = rehearse(plan, Path(folder), overrides, {})
        except USER_ERRORS as error:
            assert_is_one_line(error, overrides[-1])
            return "failed"
    assert_adds_up(summary)
    return summary["verdict"]


def test_weird_values_end_in_one_line_or_in_a_run_that_adds_up():
    ended: Counter[str] = Counter()

    @EXAMPLES
    @given(st.data())
    def ends_well(data):
        overrides = drawn(lambda choices: data.draw(st.sampled_from(choices)), range(NUM_CONFIGURATIONS))
        ended[ends_as(overrides)] += 1

    ends_well()
    assert all(ended[end] for end in ("refused", "VALID", "ILLUSTRATIVE")) and ended["INVALID"] + ended["DEGRADED"], ended
