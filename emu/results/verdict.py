"""Whether the numbers of a run may be trusted, and if not, why."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from emu.core import setting
from emu.results.run_record import Fidelity, RunRecord
from emu.results.shadow import Shadow, Window

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
    steps. `overrun_p99_s` is by how much KV payloads may be verified later than their transfers end by the model. `late_s` is
    by how much one may be before it counts as overrun, `saturated_s` how many seconds of work may wait before the emulated
    cluster may be called saturated: neither affects the verdict.

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

    def __post_init__(self) -> None:
        for field in fields(self):
            setting.positive(f"verdict.{field.name}", getattr(self, field.name))
        setting.between("verdict.extrapolated_share", self.extrapolated_share, 0, 1)


def judge(
    limits: VerdictLimits,
    record: RunRecord,
    num_transfers: int,
    overrun_s: np.ndarray,
    num_steps: int,
    num_extrapolated: int,
    broken: list[str],
    shadows: Sequence[Shadow] = (),
) -> Verdict:
    """The verdict on a run of `num_steps` steps and `num_transfers` hand-overs, whose `broken` lines tell of invariants.

    `overrun_s` has an entry for each payload that was moved: how much later than modelled it was verified, 0 if it was not.
    `shadows` are those of the machines that executed for real.

    A value below its limit is VALID, up to `limits.degraded_factor` times the limit DEGRADED, beyond INVALID. So is the drift
    of a real machine from its timing model: the limit of its median is the error that the model states, that of its worst
    window WORST_PER_STATED times as much; without a stated error it is not judged. A broken invariant, a transfer that
    moved bytes and was not verified, an interruption, and a real machine with fewer KV blocks than declared are INVALID.
    Without `record.fidelity` (time is emulated) nothing of the host is judged.
    """
    reasons = list(broken)
    if record.interrupted:
        reasons.insert(0, f"interrupted: {record.interrupted}")
    num_unverified = num_transfers - len(overrun_s)
    if record.kv.payload_scale > 0 and num_unverified > 0:
        reasons.append(f"{num_unverified} of {num_transfers} KV transfers were not verified (limit 0)")
    reasons += _missing_blocks(record)
    verdict = INVALID if reasons else VALID
    rules = [] if record.fidelity is None else _host_rules(limits, record.fidelity)
    share = num_extrapolated / num_steps if num_steps else 0.0
    rules.append(_rule(share, limits.extrapolated_share, "steps outside the profiled range", "{:.2%}".format))
    if len(overrun_s):
        p99_s = float(np.percentile(overrun_s, 99))
        rules.append(_rule(p99_s, limits.overrun_p99_s, "KV payloads later than modelled at p99", _milliseconds))
    rules += _drift_rules(shadows)
    for rule in rules:
        if not rule.value < rule.limit:
            reasons.append(rule.reason)
            beyond = not rule.value <= limits.degraded_factor * rule.limit
            verdict = INVALID if beyond or verdict == INVALID else DEGRADED
    return Verdict(verdict, reasons)


def illustrative(verdict: Verdict, line: str) -> Verdict:
    """The verdict on a run whose figures are illustrative, as `line` says; the same verdict without a line."""
    if not line:
        return verdict
    return Verdict(ILLUSTRATIVE if verdict.verdict == VALID else verdict.verdict, [*verdict.reasons, line])


class _Rule(NamedTuple):
    """`value` must stay below `limit`; `reason` is the line that says that it did not."""

    value: float
    limit: float
    reason: str


def _rule(value: float, limit: float, what: str, text: Callable[[float], str]) -> _Rule:
    return _Rule(value, limit, f"{what}: {text(value)} (limit {text(limit)})")


def _milliseconds(value_s: float) -> str:
    return f"{value_s * 1e3:,.2f} ms"


def _host_rules(limits: VerdictLimits, fidelity: Fidelity) -> list[_Rule]:
    rules = []
    for name, late_s in (("messages", fidelity.message_late_s), ("wake-ups", fidelity.wakeup_late_s)):
        if len(late_s):
            p99_s, max_s = float(np.percentile(late_s, 99)), float(late_s.max())
            rules.append(_rule(p99_s, limits.late_p99_s, f"{name} late at p99", _milliseconds))
            rules.append(_rule(max_s, limits.late_max_s, f"{name} late at most", _milliseconds))
    rules.append(_rule(fidelity.foreign_cores, limits.foreign_cores, "CPU used by other processes", "{:.2f} cores".format))
    rules.append(_rule(fidelity.clock_error_s, limits.clock_error_s, "clock error between nodes", _milliseconds))
    return rules


def _drift_rules(shadows: Sequence[Shadow]) -> Iterator[_Rule]:
    for shadow in shadows:
        worst, whole = shadow.worst_window, shadow.whole
        if worst is not None and whole is not None:
            yield _drift_rule(shadow.machine, worst, WORST_PER_STATED)
            yield _drift_rule(shadow.machine, whole, 1.0)


def _drift_rule(machine: str, window: Window, factor: float) -> _Rule:
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
