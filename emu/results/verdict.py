"""Whether the numbers of a run may be trusted, and if not, why."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from emu.core import setting
from emu.results.distribution import percentile
from emu.results.failures import count_failures
from emu.results.run_record import Fidelity, RunRecord
from emu.results.shadow import DriftWindow, Shadow

INVALID, DEGRADED, ILLUSTRATIVE, VALID = "INVALID", "DEGRADED", "ILLUSTRATIVE", "VALID"  # worst first
# A stated error is a 95th percentile. The worst of a run's many windows may be beyond it: one in a thousand by this factor, if
# errors are normally distributed.
WORST_PER_STATED = 1.7


@dataclass(frozen=True, slots=True)
class Verdict:
    """`verdict` is INVALID, DEGRADED, ILLUSTRATIVE or VALID; each rule that failed is a line in `reasons`."""

    verdict: str
    reasons: list[str]


@dataclass(frozen=True, slots=True)
class VerdictLimits:
    """The limits below which a run is VALID, and the factor up to which it is DEGRADED; see `judge`.

    `late_p99_s` and `late_max_s` hold for messages and for wake-ups, in emulated seconds. `extrapolated_share` is of all
    steps, `failed_share` of all requests: any that failed makes a run DEGRADED, this share INVALID. `overrun_p99_s` is by how
    much KV payloads may be verified later than their transfers end by the model. `late_s` is by how much one may be before it
    counts as overrun, `saturated_s` how many seconds of work may wait before the emulated cluster may be called saturated:
    neither affects the verdict.

    Raises SettingError for a value that cannot be a limit.
    """

    late_p99_s: float
    late_max_s: float
    foreign_cores: float
    extrapolated_share: float
    clock_error_s: float
    degraded_factor: float
    overrun_p99_s: float
    late_s: float
    saturated_s: float
    failed_share: float

    def __post_init__(self) -> None:
        for field in fields(self):
            setting.positive(f"verdict.{field.name}", getattr(self, field.name))
        for share in ("extrapolated_share", "failed_share"):
            setting.between(f"verdict.{share}", getattr(self, share), 0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What of a run's facts its verdict goes by.

    `requests` are its counts, `failures` the failed ones by cause (`grouped_failures`), `saturated` whether the cluster was.
    `overrun_s` has an entry for each payload that was moved: how much later than modelled it was verified, 0 if it was not.
    `broken` lines tell of invariants. `shadows` are those of the machines that executed for real.
    """

    requests: Mapping[str, int]
    failures: list[dict[str, Any]]
    saturated: bool
    num_transfers: int
    overrun_s: np.ndarray
    num_steps: int
    num_extrapolated: int
    broken: list[str]
    shadows: Sequence[Shadow] = ()


def judge(limits: VerdictLimits, record: RunRecord, found: Findings) -> Verdict:
    """The verdict on a run with these findings.

    A value below its limit is VALID, up to `limits.degraded_factor` times the limit DEGRADED, beyond INVALID. So is the drift
    of a real machine from its timing model: the limit of its median is the error that the model states, that of its worst
    window WORST_PER_STATED times as much; without a stated error it is not judged. A broken invariant, a transfer that
    moved bytes and was not verified, an interruption, and a real machine with fewer KV blocks than declared are INVALID; for
    requests that failed see `_failed_requests`. Without `record.fidelity` (time is emulated) nothing of the host is judged.
    """
    share = found.num_extrapolated / found.num_steps if found.num_steps else 0.0
    rules = [
        *([] if record.fidelity is None else _host_rules(limits, record.fidelity)),
        _rule(share, limits.extrapolated_share, "steps outside the profiled range", "{:.2%}".format),
        *_overrun_rules(limits, found.overrun_s),
        *_drift_rules(found.shadows),
    ]
    reasons = [
        *_never_valid(record, found),
        *([] if record.interrupted else _failed_requests(limits, found)),
        *(rule.reason(limits.degraded_factor) for rule in rules if not rule.value < rule.limit),
    ]
    verdicts = {verdict for verdict, _ in reasons}
    worst = next((verdict for verdict in (INVALID, DEGRADED) if verdict in verdicts), VALID)
    return Verdict(worst, [line for _, line in reasons])


Reason = tuple[str, str]  # a verdict other than VALID, and the line that says why


def _never_valid(record: RunRecord, found: Findings) -> Iterator[Reason]:
    if record.interrupted:
        yield INVALID, f"interrupted: {record.interrupted}"
    for line in found.broken:
        yield INVALID, line
    num_unverified = found.num_transfers - len(found.overrun_s)
    if record.kv.payload_scale > 0 and num_unverified > 0:
        yield INVALID, f"{num_unverified} of {found.num_transfers} KV transfers were not verified (limit 0)"
    for line in _missing_blocks(record):
        yield INVALID, line


def _failed_requests(limits: VerdictLimits, found: Findings) -> Iterator[Reason]:
    """What failed other than by a planned fault. What a SATURATED run could not finish is that reason, and never INVALID."""
    submitted = found.requests["submitted"]
    num_failed, num_excess = count_failures(found.failures, found.saturated)
    if not found.requests["finished"]:
        most = f": {found.failures[0]['cause']}" if found.failures else ""
        yield INVALID, f"none of {submitted:,} requests finished{most}"
    elif num_failed:
        share = num_failed / submitted
        verdict = INVALID if share >= limits.failed_share else DEGRADED
        yield verdict, f"{num_failed:,} of {submitted:,} requests failed: {share:.2%} (limit {limits.failed_share:.2%})"
    if num_excess:
        yield DEGRADED, f"saturated: {num_excess:,} of {submitted:,} requests were unfinished at the end"


def illustrative(verdict: Verdict, line: str) -> Verdict:
    """The verdict on a run whose figures are illustrative, as `line` says; the same verdict without a line."""
    if not line:
        return verdict
    return Verdict(ILLUSTRATIVE if verdict.verdict == VALID else verdict.verdict, [*verdict.reasons, line])


class _Rule(NamedTuple):
    """`value` must stay below `limit`; `line` says that it did not."""

    value: float
    limit: float
    line: str

    def reason(self, degraded_factor: float) -> Reason:
        return (DEGRADED if self.value <= degraded_factor * self.limit else INVALID), self.line


def _rule(value: float, limit: float, what: str, text: Callable[[float], str]) -> _Rule:
    return _Rule(value, limit, f"{what}: {text(value)} (limit {text(limit)})")


def _milliseconds(value_s: float) -> str:
    return f"{value_s * 1e3:,.2f} ms"


def _host_rules(limits: VerdictLimits, fidelity: Fidelity) -> list[_Rule]:
    rules = []
    for name, late_s in (("messages", fidelity.message_late_s), ("wake-ups", fidelity.wakeup_late_s)):
        if len(late_s):
            p99_s, max_s = percentile(late_s, 99), float(late_s.max())
            rules.append(_rule(p99_s, limits.late_p99_s, f"{name} late at p99", _milliseconds))
            rules.append(_rule(max_s, limits.late_max_s, f"{name} late at most", _milliseconds))
    rules.append(_rule(fidelity.foreign_cores, limits.foreign_cores, "CPU used by other processes", "{:.2f} cores".format))
    rules.append(_rule(fidelity.clock_error_s, limits.clock_error_s, "clock error between nodes", _milliseconds))
    return rules


def _overrun_rules(limits: VerdictLimits, overrun_s: np.ndarray) -> Iterator[_Rule]:
    if len(overrun_s):
        share = np.count_nonzero(overrun_s > limits.late_s) / len(overrun_s)
        what = f"KV payloads later than modelled at p99 ({share:.0%} of them by more than {_milliseconds(limits.late_s)})"
        yield _rule(percentile(overrun_s, 99), limits.overrun_p99_s, what, _milliseconds)


def _drift_rules(shadows: Sequence[Shadow]) -> Iterator[_Rule]:
    for shadow in shadows:
        worst, whole = shadow.worst_window, shadow.whole
        if worst is not None and whole is not None:
            yield _drift_rule(shadow.machine, worst, WORST_PER_STATED)
            yield _drift_rule(shadow.machine, whole, 1.0)


def _drift_rule(machine: str, window: DriftWindow, factor: float) -> _Rule:
    assert window.stated_error is not None  # of a machine of which a whole is known, that is of steps that have one
    reason = (
        f"{machine} takes {1 + window.drift:.2f} x as long as its timing model says, in {window.num_steps} steps "
        f"from {window.start_s:.1f} s on (stated error {100 * window.stated_error:.2g} %)"
    )
    return _Rule(abs(window.drift), factor * window.stated_error, reason)


def _missing_blocks(record: RunRecord) -> Iterator[str]:
    for index, num_had in record.num_kv_blocks_had.items():
        machine = record.machines[index]
        if num_had < machine.num_kv_blocks:
            yield f"{machine.name} has {num_had:,} of the {machine.num_kv_blocks:,} KV blocks declared"
