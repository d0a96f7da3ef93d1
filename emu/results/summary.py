"""summary.json: the metrics of a run, its verdict, and under `host` what depends on where it ran."""

import json
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from emu.files import write_text
from emu.install import versions
from emu.results import metrics
from emu.results.columns import Columns
from emu.results.cost import alive_seconds, cost_and_energy
from emu.results.distribution import distribution
from emu.results.extrapolation import num_extrapolated_steps
from emu.results.failures import grouped_failures
from emu.results.handover import handover_figures
from emu.results.illustration import illustration, timing_facts
from emu.results.invariants import Ended, violations
from emu.results.ledger import handover_ledger
from emu.results.planned_deaths import without_effect
from emu.results.power import PowerMethod
from emu.results.run_record import RunRecord
from emu.results.saturation import is_saturated
from emu.results.shadow import shadow_figures, shadows
from emu.results.slo import ServiceLevels
from emu.results.speed import speed_figures
from emu.results.utilisation import utilisation
from emu.results.verdict import Findings, VerdictLimits, illustrative, judge
from emu.results.workload_figures import workload_figures


def summarize(
    record: RunRecord,
    warmup_s: float,
    limits: VerdictLimits,
    service_levels: ServiceLevels,
    power: PowerMethod,
    interval: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The summary of a run, ready for JSON. `host.wall_s` is the wall time so far; latencies and SLOs leave out the warm-up.
    `interval` is that of the latencies, where their timing states an error.

    Under the `virtual` runtime everything outside `host` depends on the configuration alone.
    """
    columns = record.recorder.columns()
    moves, requeues = columns.pool_moves, columns.requeues
    timings = [machine.timing for machine in record.machines]
    num_extrapolated = num_extrapolated_steps(columns.batches, timings)
    ledger = handover_ledger(columns, record.cluster, record.real, record.kv.payload_scale)
    broken = violations(Ended(columns, ledger, bool(record.interrupted), may_lose_facts=record.fidelity is not None))
    real = shadows(record, columns)
    num_transfers, num_steps = len(columns.transfers), len(columns.steps)
    failures, saturated = grouped_failures(columns.requests), is_saturated(columns, limits.saturated_s)
    overrun_s = overrun_seconds(columns, record.real)
    counts = metrics.request_counts(columns, record.recorder.workload.num_skipped)
    measured = metrics.measured_requests(columns, warmup_s)
    found = Findings(counts, failures, saturated, num_transfers, overrun_s, num_steps, num_extrapolated, broken, real)
    illustrates = illustration(record, service_levels)
    verdict = illustrative(judge(limits, record, found), illustrates)
    return {
        "verdict": verdict.verdict,
        "verdict_reasons": verdict.reasons,
        "saturated": saturated,
        "interrupted": record.interrupted,
        "runtime": record.runtime,
        "seed": record.seed,
        "model": record.model.name,
        "workload": workload_figures(record.recorder.workload),
        "machines": _machine_counts(record),
        "requests": counts,
        "failures": failures,
        "tokens": metrics.token_counts(columns),
        "measured_requests": int(np.count_nonzero(measured)),
        **metrics.latencies(columns, warmup_s),
        **({} if interval is None else {"interval": interval}),
        "handover": handover_figures(ledger, measured, columns, record.cluster),
        "offered_rps": metrics.offered_rps(columns),
        "completed_rps": metrics.completed_rps(columns),
        "slo": service_levels.judge(columns, warmup_s),
        **cost_and_energy(record, columns, power),
        "utilisation": utilisation(record, columns, alive_seconds(record, columns)),
        "kv": metrics.kv_figures(record, columns),
        "overrun_s": distribution(overrun_s),
        "paused": int((columns.batches.num_paused * columns.batches.num_steps).sum()),
        "evicted": int(np.count_nonzero(requeues.evicted)),
        "restarted": int(np.count_nonzero(~requeues.evicted)),
        "dropped": len(columns.drops),
        "machines_died": [record.machines[index].name for index in moves.machine[moves.pool == "dead"]],
        "faults_without_effect": without_effect(record, moves),
        "pools": metrics.pool_seconds(moves, record.emulated_s),
        "late": metrics.lateness(record.fidelity),
        "timing": {"steps": num_steps, "extrapolated_steps": num_extrapolated, **timing_facts(record, illustrates)},
        **({"shadow": shadow_figures(real), "speed": speed_figures(record, columns)} if real else {}),
        "emulated_s": record.emulated_s,
        "events": record.num_events,
        "host": _host(record),
    }


def overrun_seconds(columns: Columns, real: Sequence[int]) -> np.ndarray:
    """By how many seconds each payload was verified later than its transfer ended by the model.

    Or later than its prefill ended, where that was executed by one of the `real` machines: by how much a real step differs from
    its model is the shadow's business.
    """
    payloads, requests = columns.payloads, columns.requests
    of = payloads.request_id
    is_known = (requests.attempts[of] == 1) & np.isin(requests.prefill_on[of], real)
    due_s = np.where(is_known, np.fmax(payloads.modelled_s, requests.first_token_s[of]), payloads.modelled_s)
    return np.maximum(0.0, payloads.verified_s - due_s)


def write_summary(summary: dict[str, Any], path: Path) -> None:
    """Write `summary` to `path`, all or nothing: a reader never sees half a file."""
    write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", path)


def _machine_counts(record: RunRecord) -> dict[str, dict[str, int]]:
    """How many machines of each hardware there are, by role."""
    counts: dict[str, dict[str, int]] = {}
    for machine in record.machines:
        of_role = counts.setdefault(str(machine.role), {})
        of_role[machine.hardware.name] = of_role.get(machine.hardware.name, 0) + 1
    return counts


def host_facts(packages: Iterable[str]) -> dict[str, Any]:
    """When and where this is, and with which versions of Python, emu and these packages."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "num_cores": os.cpu_count(),
        "versions": {"python": platform.python_version()} | versions(*packages),
    }


def _host(record: RunRecord) -> dict[str, Any]:
    packages = ("numpy", "pyarrow", *(["ray"] if record.runtime == "ray" else []))
    host = {"wall_s": perf_counter() - record.wall_start} | host_facts(packages)
    if record.fidelity is not None:
        host["dilation"] = record.fidelity.dilation
        host["foreign_cores"] = record.fidelity.foreign_cores
        host["clock_error_s"] = record.fidelity.clock_error_s
    return host | record.host
