"""How far the latencies of a run may be off for the error that its timing states: replays of it at both ends of that error."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from emu.core.cluster import Cluster
from emu.core.timing.biased import Biased
from emu.results.columns import FINISHED
from emu.results.metrics import latencies
from emu.results.recorder import Recorder
from emu.results.run_record import RunRecord
from emu.runtime.interrupt import Interrupt
from emu.runtime.run_config import RunConfig
from emu.runtime.virtual_loop import VirtualRuntime
from emu.workload.workload import Workload

METRICS = ("ttft_s", "tbt_s", "tpot_s", "e2e_s")
STATISTICS = ("mean", "p50", "p90", "p99")

Latencies = Mapping[str, Mapping[str, float | None]]


def prediction_interval(run_config: RunConfig, record: RunRecord, warmup_s: float) -> dict[str, Any] | None:
    """The summary's `interval`, ready for JSON: for each of METRICS and STATISTICS its `low` and `high` end in seconds, or None
    where there is nothing to measure; None in all where no machine's timing states an error, or where Ctrl-C ended the run or,
    before they are over, its replays.

    The ends come from virtual replays of the whole run in which every pass of every machine takes as long, and as short, as the
    stated error allows. That all passes are off in one direction is the worst case: queues then grow or shrink as well. A
    replay as the timing says it is in the interval too, and so are the run's own figures: `contains_run` is true. It is false
    where all machines were real: the interval is then what the timing predicts, to be compared with what was measured.
    """
    if record.interrupted or not _states_error(run_config):
        return None
    contains_run = len(record.real) < len(record.machines)
    workload = _as_answered(run_config.workload, record) if record.real else run_config.workload
    found: list[Mapping[str, Mapping[str, float | None]]] = []
    if contains_run:
        found.append(latencies(record.recorder.columns(), warmup_s))
    clusters = [_biased(run_config.cluster, sign) for sign in (-1.0, 1.0)]
    if record.fidelity is not None:  # else the run itself is the replay without a bias
        clusters.append(run_config.cluster)
    with Interrupt() as interrupt:
        for cluster in clusters:
            replayed = replace(run_config, cluster=cluster, workload=workload)
            found.append(_replay(replayed, warmup_s, lambda now_s: not interrupt.requested))
        if interrupt.requested:
            return None
    ends = {metric: {statistic: _ends(found, metric, statistic) for statistic in STATISTICS} for metric in METRICS}
    return {"contains_run": contains_run} | ends


def _states_error(run_config: RunConfig) -> bool:
    """Whether a machine's timing states an error for the first prompt, or for a decode step after it."""
    num_tokens = int(run_config.workload.prompt_tokens[0])
    return any(
        machine.timing.relative_error(*step) is not None
        for machine in run_config.cluster.machines
        for step in (((num_tokens,), 0, 0), ((), 1, num_tokens))
    )


def _as_answered(workload: Workload, record: RunRecord) -> Workload:
    """With the lengths of the answers as they were: a real machine may have ended one before the length asked for."""
    requests = record.recorder.columns().requests
    return replace(
        workload, output_tokens=np.where(requests.status == FINISHED, requests.num_tokens_out, requests.output_tokens)
    )


def _biased(cluster: Cluster, sign: float) -> Cluster:
    return replace(
        cluster, machines=tuple(replace(machine, timing=Biased(machine.timing, sign)) for machine in cluster.machines)
    )


def _replay(run_config: RunConfig, warmup_s: float, goes_on: Callable[[float], bool]) -> Latencies:
    recorder = Recorder(run_config.workload, len(run_config.cluster.machines))
    runtime = VirtualRuntime(run_config.cluster, run_config.workload, recorder, run_config.max_drain_s, run_config.faults)
    runtime.run(goes_on)
    return latencies(recorder.columns(), warmup_s)


def _ends(found: list[Latencies], metric: str, statistic: str) -> dict[str, float] | None:
    values = [value for of in found if (value := of[metric][statistic]) is not None]
    return {"low": min(values), "high": max(values)} if values else None
