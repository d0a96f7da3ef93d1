"""What a runtime returns: the facts it recorded, and what only it knows of the run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emu.core.cluster import Cluster
from emu.core.machine_kind import MachineSpec
from emu.core.specs import ModelSpec
from emu.results.recorder import Recorder

# What can go wrong with the messages that carry a payload, as `transfer.counts.TransferCounts` explains.
INCIDENTS = ("corrupt", "truncated", "duplicated", "reordered", "late", "missing", "broken", "resent", "failed")


@dataclass(frozen=True, slots=True, eq=False)
class KVStats:
    """The KV payloads that really moved: `payload_scale` is their share of the modelled bytes, 0 where nothing moves.

    `bytes_moved` counts what came, again included; `verified` payloads of which every byte was right; `overruns` transfers
    that took longer than modelled by more than `verdict.late_s`. `incidents` counts INCIDENTS. `probe_bytes_per_s` is the rate
    measured at start-up, None without.
    """

    payload_scale: float = 0.0
    bytes_moved: int = 0
    verified: int = 0
    overruns: int = 0
    incidents: dict[str, int] = field(default_factory=lambda: dict.fromkeys(INCIDENTS, 0))
    probe_bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Fidelity:
    """How well the host kept up with emulated time, in emulated seconds.

    `message_late_s` has an entry for each message handled and `wakeup_late_s` for each wake-up: how much after its due time,
    0 where it was on time. `foreign_cores` is the number of cores that other processes used on average, `clock_error_s` the
    largest error of a clock offset between nodes, `dilation` how many wall seconds an emulated one took.
    """

    message_late_s: np.ndarray
    wakeup_late_s: np.ndarray
    foreign_cores: float
    clock_error_s: float
    dilation: float


@dataclass(frozen=True, slots=True, eq=False)
class RunRecord:
    """One run, ended. `emulated_s` is the time of its last event, `num_events` how many were handled.

    `fidelity` is None where time is emulated too. `interrupted` is why the run ended early, '' where it did not. `wall_start`
    is `time.perf_counter()` at the first event. `host` holds further facts of the host for the summary, ready for JSON.

    `real` are the indices of the machines that executed for real, `num_kv_blocks_had` how many KV blocks each of them really
    has, which may be fewer than `MachineSpec.num_kv_blocks` declares.

    `faults` are the planned deaths: index of the machine and second.
    """

    runtime: str
    seed: int
    cluster: Cluster
    recorder: Recorder
    emulated_s: float
    num_events: int
    kv: KVStats
    fidelity: Fidelity | None
    interrupted: str
    wall_start: float
    host: dict[str, Any] = field(default_factory=dict)
    real: tuple[int, ...] = ()
    num_kv_blocks_had: Mapping[int, int] = field(default_factory=dict)
    faults: tuple[tuple[int, float], ...] = ()

    @property
    def model(self) -> ModelSpec:
        return self.cluster.model

    @property
    def machines(self) -> tuple[MachineSpec, ...]:
        return self.cluster.machines


def packing(host: Mapping[str, Any]) -> str:
    """By a record's or a summary's `host`: how many machines share how many Ray actors; empty where each has its own."""
    ray = host.get("ray", {})
    num_machines, num_actors = ray.get("num_machines", 0), ray.get("num_machine_actors", 0)
    return f"{num_machines:,} machines in {num_actors:,} Ray actors" if num_actors < num_machines else ""
