"""Requests that failed: why, how many, and which of them count against a run."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from emu.core.facts import KILLED_BY_FAULTS, is_unfinished
from emu.results.columns import FAILED, Requests

_NUMBER = re.compile(r"\d[\d.,]*")


def grouped_failures(requests: Requests) -> list[dict[str, Any]]:
    """The failed requests by `cause`, the most frequent first: their `count`, and the number of the `first_request`.

    Causes that differ in numbers alone are one, told in the words of the first request.
    """
    groups: dict[str, dict[str, Any]] = {}
    failed = np.flatnonzero(requests.status == FAILED)
    causes, firsts, counts = np.unique(requests.cause[failed], return_index=True, return_counts=True)
    for row in np.argsort(firsts):  # in the order in which they first occurred
        cause = requests.causes[causes[row]]
        new = {"cause": cause, "count": 0, "first_request": int(failed[firsts[row]])}
        groups.setdefault(_NUMBER.sub("#", cause), new)["count"] += int(counts[row])
    return sorted(groups.values(), key=lambda group: (-group["count"], group["first_request"]))


def count_failures(failures: Iterable[Mapping[str, Any]], saturated: bool) -> tuple[int, int]:
    """How many of the grouped `failures` count against the run, and how many a `saturated` run merely had no time for.

    A failure whose recorded cause is a fault that the configuration asked for is neither.
    """
    num_failed = num_excess = 0
    for group in failures:
        if saturated and is_unfinished(group["cause"]):
            num_excess += group["count"]
        elif KILLED_BY_FAULTS not in group["cause"]:
            num_failed += group["count"]
    return num_failed, num_excess


def was_refused(requests: Requests) -> np.ndarray:
    """Which requests failed for good before the run gave up (bool): they wait for nothing."""
    is_final = np.array([bool(cause) and not is_unfinished(cause) for cause in requests.causes])
    return (requests.status == FAILED) & is_final[requests.cause]


def failure_text(group: Mapping[str, Any]) -> str:
    """One group in words."""
    return f"{group['count']:,} {group['cause']} (first: request {group['first_request']})"
