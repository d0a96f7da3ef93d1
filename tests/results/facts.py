"""Runs for the tests of this folder: recorded from hand-written facts, or from a small cluster."""

from math import inf

import numpy as np

from emu.core.batch import Batch, DecodeJoin, Prefill
from emu.core.batching.mixed_continuous import MixedContinuous
from emu.core.cluster import Cluster
from emu.core.facts import TokensEmitted
from emu.core.machine_kind import MachineSpec
from emu.core.paged_machines import PagedMachines
from emu.core.placement.token_jsq import TokenJsq
from emu.core.pools import Role
from emu.core.repurposing import NEVER
from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing.constant import ConstantTiming
from emu.results.power import RatedPower
from emu.results.recorder import Recorder
from emu.results.run_record import KVStats, RunRecord
from emu.results.slo import ServiceLevels, SloSettings
from emu.results.summary import summarize
from emu.results.verdict import VerdictLimits
from emu.runtime.fault import Fault
from emu.runtime.virtual import VirtualRuntime
from emu.workload.workload import Workload

TIMING = ConstantTiming(prefill_s_per_token=0.001, decode_step_s=0.03)
MODEL = ModelSpec("tiny", num_params=1000, num_layers=2, hidden_size=8, num_heads=2, num_kv_heads=2, head_dim=4)
HARDWARE = HardwareSpec(
    name="box",
    num_gpus=1,
    hbm_bytes_per_gpu=2**30,
    hbm_bytes_per_s=1e9,
    memory_fraction=0.9,
    activation_reserve_bytes=0,
    nic_bytes_per_s=1e6,
    link_latency_s=0.001,
    gpu_power_w=1.0,
    relative_power=1.0,
    price_per_hour=1.0,
)
LIMITS = VerdictLimits(
    late_p99_s=0.005,
    late_max_s=0.25,
    foreign_cores=0.5,
    extrapolated_share=0.05,
    clock_error_s=0.001,
    degraded_factor=4,
    late_s=0.005,
    overrun_p99_s=0.05,
    saturated_s=2,
    failed_share=0.01,
)
SLO = SloSettings(
    HARDWARE,
    "mean",
    ttft_p50=2,
    ttft_p90=3,
    ttft_p99=6,
    tbt_p50=1.25,
    tbt_p90=1.5,
    tbt_p99=5,
    e2e_p50=1.25,
    e2e_p90=1.5,
    e2e_p99=5,
)
POWER = RatedPower(base_w=1000.0)
LEVELS = ServiceLevels.of(SLO, TIMING, MODEL)
ROLES = {"p": Role.PREFILL, "d": Role.DECODE, "m": Role.MIXED}


def workload_of(requests) -> Workload:
    """`requests`: (arrival_s, prompt_tokens, output_tokens) each."""
    arrival_s, prompt_tokens, output_tokens = zip(*requests, strict=True)
    return Workload("test", np.array(arrival_s, float), np.array(prompt_tokens), np.array(output_tokens))


def prefill(machine, start_s, end_s, *requests, finished=()) -> TokensEmitted:
    """A step of prompts alone: (request, attempt, num_tokens, num_generated) each."""
    return TokensEmitted(
        machine, start_s, (end_s,), Batch(tuple(Prefill(*request) for request in requests), (), (), 0, 0, 0), finished
    )


def decode(machine, start_s, ends_s, *joins, leaves=(), finished=(), num_decodes=1) -> TokensEmitted:
    """A run of decode steps; joins are (request, attempt, num_cached, num_generated) each."""
    batch = Batch((), tuple(DecodeJoin(*join) for join in joins), leaves, num_decodes, 10 * num_decodes, 0)
    return TokensEmitted(machine, start_s, tuple(ends_s), batch, finished)


def recorded(requests, facts, num_machines=3) -> Recorder:
    """`facts`: (time, fact) each, or a TokensEmitted alone, which carries its times."""
    recorder = Recorder(workload_of(requests), num_machines)
    for entry in facts:
        now_s, fact = (entry.boundaries_s[-1], entry) if isinstance(entry, TokensEmitted) else entry
        recorder.record(now_s, fact)
    return recorder


def cluster_of(machine_names, num_kv_blocks=100, layerwise_min_tokens=inf) -> Cluster:
    """Machines of `num_kv_blocks` blocks of 4 tokens each; a control message is under way for 5 ms."""
    machines = tuple(
        MachineSpec(index, name, ROLES[name[0]], HARDWARE, num_kv_blocks, TIMING) for index, name in enumerate(machine_names)
    )
    policies = (TokenJsq(), MixedContinuous(64, 2), NEVER)
    return Cluster(MODEL, machines, PagedMachines(4, 0.01, 0.5), *policies, 0.005, 0.0, layerwise_min_tokens, True)


def run_record(recorder, machine_names=("p0", "d0", "d1"), **changes) -> RunRecord:
    facts = dict(runtime="virtual", seed=7, cluster=cluster_of(machine_names))
    facts |= dict(recorder=recorder, emulated_s=10.0, num_events=12, kv=KVStats(), fidelity=None)
    return RunRecord(**(facts | dict(interrupted="", wall_start=0.0) | changes))


def summary_of(record, warmup_s=0.0, levels=LEVELS, power=POWER) -> dict:
    return summarize(record, warmup_s, LIMITS, levels, power)


class KeepingRecorder(Recorder):
    """A recorder that also keeps the facts as they came, for a second opinion."""

    def __init__(self, workload, num_machines):
        super().__init__(workload, num_machines)
        self.facts = []
        self.handlers = {kind: self._keeping(handler) for kind, handler in self.handlers.items()}

    def _keeping(self, handler):
        def record(now_s, fact):
            self.facts.append((now_s, fact))
            handler(now_s, fact)

        return record

    @property
    def emitters(self):
        def keeping(machine, emitter):
            def emit(start_s, boundaries_s, batch, finished):
                self.facts.append((boundaries_s[-1], TokensEmitted(machine, start_s, tuple(boundaries_s), batch, finished)))
                emitter(start_s, boundaries_s, batch, finished)

            return emit

        return [keeping(machine, emitter) for machine, emitter in enumerate(super().emitters)]


def run_cluster(machine_names, requests, num_kv_blocks=40, faults=(), max_drain_s=60.0) -> RunRecord:
    """Run `requests` on machines of `num_kv_blocks` blocks of 4 tokens; `faults` are (machine index, time) each."""
    cluster = cluster_of(machine_names, num_kv_blocks)
    recorder = KeepingRecorder(workload_of(requests), len(machine_names))
    runtime = VirtualRuntime(cluster, recorder.workload, recorder, max_drain_s, [Fault(*fault) for fault in faults])
    run = runtime.run(lambda now_s: True)
    return run_record(recorder, machine_names, emulated_s=run.emulated_s, num_events=run.num_events)
