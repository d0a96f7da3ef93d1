"""The runtime in emulated time only, as configured."""

from contextlib import nullcontext
from time import perf_counter

from emu.core import setting
from emu.results.event_log import EventLog
from emu.results.recorder import Recorder
from emu.results.run_record import KVStats, RunRecord
from emu.runtime.interrupt import CAUSE, Interrupt
from emu.runtime.run_config import Progress, RunConfig
from emu.runtime.virtual_loop import VirtualRuntime
from emu.transfer.settings import TransferSettings


class Virtual:
    """Runs rehearsals in emulated time only. Each control message takes `control_latency_s`; KV bytes do not move.

    `max_num_steps` bounds the decode steps of a run: 1 executes step by step, which decides and times everything the same.
    """

    name = "virtual"
    logs_events = False

    def __init__(self, control_latency_s: float, report_period_s: float, max_num_steps: int) -> None:
        self.control_latency_s = setting.seconds_or_zero("runtime.control_latency_s", control_latency_s)
        self.report_period_s = setting.period_s_or_zero("runtime.report_period_s", report_period_s)
        self.max_num_steps = setting.whole("runtime.max_num_steps", max_num_steps, 1)

    def check(self, num_machines: int, transfer: TransferSettings) -> None:
        """Nothing: any host will do."""

    def run(self, run_config: RunConfig) -> RunRecord:
        """Run to the end, or to Ctrl-C. Raises OSError where the event log cannot be written."""
        cluster, workload = run_config.cluster, run_config.workload
        recorder = Recorder(workload, len(cluster.machines))
        log = EventLog(run_config.run_dir / "events.msgpack") if run_config.log_events else nullcontext()
        wall_start = perf_counter()
        with log as event_log, Interrupt() as interrupt:
            runtime = VirtualRuntime(
                cluster, workload, recorder, run_config.max_drain_s, run_config.faults, event_log, self.max_num_steps
            )

            def goes_on(now_s: float) -> bool:
                num_arrived = int(workload.arrival_s.searchsorted(now_s, side="right"))
                num_ended = num_arrived - len(runtime.scheduler.requests)
                run_config.on_progress(Progress(now_s, num_arrived, num_ended, late_p99_s=0.0))
                return not interrupt.requested

            run = runtime.run(goes_on)
        return RunRecord(
            runtime=self.name,
            seed=run_config.seed,
            cluster=cluster,
            recorder=recorder,
            emulated_s=run.emulated_s,
            num_events=run.num_events,
            kv=KVStats(),
            fidelity=None,
            interrupted="" if run.is_complete else CAUSE,
            wall_start=wall_start,
            faults=tuple((fault.machine, fault.at_s) for fault in run_config.faults),
        )
