"""One run as configured, whichever runtime spends its time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from emu.core.cluster import Cluster
from emu.execution.settings import EmulatedExecution, Execution
from emu.runtime.fault import Fault
from emu.transfer.settings import TransferSettings
from emu.workload.workload import Workload


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, for whoever watches. Counts are of requests; `late_p99_s` is of control messages so far."""

    now_s: float
    num_arrived: int
    num_ended: int
    late_p99_s: float


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What a runtime is given. `run_dir` must exist; the event log goes there if `log_events`.

    Requests that are unfinished `max_drain_s` after the last arrival fail. A KV payload that is verified more than `overrun_s`
    after its modelled transfer has overrun.
    """

    cluster: Cluster
    workload: Workload
    seed: int
    transfer: TransferSettings
    max_drain_s: float
    run_dir: Path = Path()
    log_events: bool = False
    overrun_s: float = 0.005
    faults: tuple[Fault, ...] = ()
    execution: Execution = field(default_factory=EmulatedExecution)
    on_progress: Callable[[Progress], None] = field(default=lambda progress: None)
    on_status: Callable[[str], None] = field(default=lambda line: None)
