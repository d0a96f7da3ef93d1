"""Small clusters for tests, and their runs: every run is checked against the invariants and against itself."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pytest

from emu.core.batching.fcfs import Fcfs
from emu.core.batching.policy import BatchingPolicy
from emu.core.cluster import Cluster
from emu.core.machine_kind import MachineSpec
from emu.core.paged_machines import PagedMachines
from emu.core.placement.policy import PlacementPolicy
from emu.core.placement.token_jsq import TokenJsq
from emu.core.pools import Role
from emu.core.repurposing import NEVER, RepurposingPolicy
from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing.constant import ConstantTiming
from emu.core.timing.model import TimingModel
from emu.core.timing.profile import ProfileTiming
from emu.results.columns import Columns
from emu.results.invariants import Ended, violations
from emu.results.ledger import handover_ledger
from emu.results.recorder import Recorder
from emu.runtime.fault import Fault
from emu.runtime.virtual import VirtualRuntime
from emu.workload.workload import Workload
from tests.stalling import StallingRuntime
from tests.watch import Watch, assert_nothing_is_left

ROLES = {"p": Role.PREFILL, "d": Role.DECODE, "m": Role.MIXED}
WIND_UP_S = 60.0  # that a run may go on after its deadline
# Figures to compute with by hand: 1 ms a prompt token, 30 ms a decode step, 1 ms to move a token's KV cache after 2 ms.
PREFILL_S, STEP_S, MOVE_S, LINK_S, LATENCY_S = 0.001, 0.03, 0.001, 0.002, 0.005
TIMING = ConstantTiming(PREFILL_S, STEP_S)
# And some where every batch takes a time of its own, as on measured hardware.
UNEVEN = ProfileTiming(
    prefill_tokens=[128, 512, 2048],
    prefill_s=[0.047, 0.061, 0.203],
    pair_saving_s=4e-9,
    attention_per_token=1e-5,
    decode_num_seqs=[1, 4, 64],
    decode_s=[0.0301, 0.0317, 0.0449],
    kv_read_s_per_token=1e-6,
    max_seq_context_tokens=8320,
)
MODEL = ModelSpec("small", num_params=10**6, num_layers=5, hidden_size=50, num_heads=5, num_kv_heads=5, head_dim=10)
HARDWARE = HardwareSpec(
    name="box",
    num_gpus=1,
    hbm_bytes_per_gpu=2**30,
    hbm_bytes_per_s=1e9,
    memory_fraction=0.9,
    activation_reserve_bytes=0,
    nic_bytes_per_s=MODEL.kv_bytes_per_token / MOVE_S,
    link_latency_s=LINK_S,
    gpu_power_w=1.0,
    relative_power=1.0,
    price_per_hour=1.0,
)


def exactly(times_s):
    """Compares equal to times that are these but for rounding."""
    return pytest.approx(times_s, rel=0, abs=1e-12)


def make_cluster(
    names: str,
    *,
    placement: PlacementPolicy | None = None,
    batching: BatchingPolicy | None = None,
    timing: TimingModel = TIMING,
    latency_s: float = LATENCY_S,
    num_blocks: int = 1000,
    block_tokens: int = 16,
    watermark: float = 0.0,
    max_held_fraction: float = 0.5,
    repurposing: RepurposingPolicy = NEVER,
    report_period_s: float = 0.0,
    layerwise_min_tokens: float = math.inf,
    layers_per_piece: int = 1,
    contention: bool = False,
    **num_blocks_of: int,
) -> Cluster:
    """A cluster of the machines `names`, such as "p0 d0 d1 m0"; token_jsq and fcfs unless told otherwise.

    Each has `num_blocks` KV blocks but those named: `d0=10`. Transfers have their NICs to themselves, unless told otherwise:
    times by hand then hold whatever else is under way.
    """
    machines = tuple(
        MachineSpec(index, name, ROLES[name[0]], HARDWARE, num_blocks_of.get(name, num_blocks), timing)
        for index, name in enumerate(names.split())
    )
    policies = (placement or TokenJsq(), batching or Fcfs(max_batch_tokens=2048, max_num_pauses=4))
    kind = PagedMachines(block_tokens, watermark, max_held_fraction)
    network = (layerwise_min_tokens, contention, layers_per_piece)
    return Cluster(MODEL, machines, kind, *policies, repurposing, latency_s, report_period_s, *network)


def make_workload(requests: Sequence[tuple[float, int, int]]) -> Workload:
    """`requests`: arrival in seconds, prompt tokens and output tokens of each."""
    arrival_s, prompt_tokens, output_tokens = zip(*requests, strict=True)
    return Workload("test", np.array(arrival_s, float), np.array(prompt_tokens, np.int64), np.array(output_tokens, np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A run that is over, and in order."""

    columns: Columns
    num_machines: int
    packed_events: bytes

    def tokens_s(self, request_id: int) -> list[float]:
        """When each output token of the request came out first."""
        segments, step_end_s = self.columns.segments, self.columns.steps.end_s
        first_s: dict[int, float] = {}
        for row in np.flatnonzero(segments.request_id == request_id):
            end_s = step_end_s[segments.first_step[row] : segments.last_step[row] + 1].tolist()
            for token, at_s in enumerate(end_s, start=int(segments.first_token[row])):
                first_s[token] = min(at_s, first_s.get(token, at_s))
        return [first_s[token] for token in sorted(first_s)]

    def pool_moves(self) -> list[tuple[float, int, str]]:
        """(time to the picosecond, machine, pool) of each move after the start, when every machine goes to its home pool."""
        moves = self.columns.pool_moves
        table = zip(moves.time_s.round(12).tolist(), moves.machine.tolist(), moves.pool.tolist(), strict=True)
        return list(table)[self.num_machines :]


def simulate(
    cluster: Cluster,
    requests: Workload | Sequence[tuple[float, int, int]],
    *,
    deaths: Mapping[str, float] | None = None,
    max_drain_s: float = 1000.0,
    make_runtime: Callable[..., VirtualRuntime | StallingRuntime] = VirtualRuntime,
) -> Run:
    """Run `requests` on `cluster` under watch; machines die at the times in `deaths`, by name.

    Whatever a test is about, this checks of its run: the invariants, at every event and at the end; that the same run again
    leaves the same bytes; and that step-by-step execution comes to the same tables, to the bit.
    """
    workload = requests if isinstance(requests, Workload) else make_workload(requests)
    index_of = {spec.name: spec.index for spec in cluster.machines}
    deadline_s = float(workload.arrival_s[-1]) + max_drain_s + WIND_UP_S
    faults = [Fault(index_of[name], at_s) for name, at_s in (deaths or {}).items()]

    def run(**limit: int) -> Run:
        watch, recorder = Watch(cluster, deadline_s), Recorder(workload, len(cluster.machines))
        runtime = make_runtime(cluster, workload, recorder, max_drain_s, faults, watch, **limit)
        watch.machines = runtime.machines
        runtime.run()
        columns = recorder.columns()
        assert violations(Ended(columns, handover_ledger(columns, cluster))) == []
        assert_nothing_is_left(runtime.scheduler, runtime.machines, runtime.network)
        watch.assert_kv_bytes_add_up(columns)
        return Run(columns, len(cluster.machines), b"".join(watch.packed))

    first = run()
    assert run().packed_events == first.packed_events
    assert_same_tables(run(max_num_steps=1).columns, first.columns)
    return first


def assert_same_tables(actual: Columns, expected: Columns) -> None:
    """All that is recorded is the same but how steps were grouped into batches."""
    for table in ("requests", "segments", "transfers", "pool_moves", "requeues", "drops"):
        for field in fields(getattr(expected, table)):
            values = [getattr(getattr(columns, table), field.name) for columns in (actual, expected)]
            np.testing.assert_array_equal(*values, f"{table}.{field.name}")
    for name in ("start_s", "end_s", "machine", "num_decodes", "context_tokens", "num_paused", "prefill_tokens"):
        values = [getattr(columns.steps, name) for columns in (actual, expected)]
        np.testing.assert_array_equal(*values, f"steps.{name}")
