"""The driver's end of a run on Ray: sends the arrivals, collects the facts and alone writes them down."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from emu.core.codec import encode
from emu.core.facts import FACTS, PoolChanged, RequestEnded, drain_cause, unfinished_cause
from emu.core.messages import DRIVER, SCHEDULER, MachineDied, RequestArrived, RunEnded
from emu.core.pools import Pool
from emu.results.event_log import EventLog, unpack_records
from emu.results.recorder import Recorder
from emu.results.run_record import INCIDENTS, Fidelity, KVStats
from emu.runtime.clock import WallClock
from emu.runtime.errors import RunError
from emu.runtime.host import NO_KV, Endpoint, Report
from emu.runtime.host_load import HostLoad
from emu.runtime.interrupt import CAUSE, Interrupt
from emu.runtime.run_config import Progress, RunConfig
from emu.runtime.wire import Channel, FrameKind, connect
from emu.transfer.counts import TransferCounts

SEND_AHEAD_S = 2.0  # emulated seconds that arrivals are sent before their time
START_DELAY_S = 1.0  # wall seconds for every host to get its START frame
TICK_S = 0.2
STOP_TIMEOUT_S = 10.0


class Driver:
    """Runs a connected cluster from the first arrival to the end of the last request.

    `kill(index)` ends the actor of a machine. After `run`, the measurements of all hosts are in the public attributes.
    """

    def __init__(
        self,
        run_config: RunConfig,
        dilation: float,
        kill: Callable[[int], None],
        event_log: EventLog | None,
        interrupt: Interrupt,
    ) -> None:
        self.run_config = run_config
        self.recorder = Recorder(run_config.workload, len(run_config.cluster.machines))
        self.dilation = dilation
        self.interrupted = ""
        self.last_event_s = 0.0
        self.num_events = 0
        self.message_late_s: list[float] = []
        self.wakeup_late_s: list[float] = []
        self.clock_error_s = 0.0
        self._kv = np.zeros(len(NO_KV), dtype=np.int64)
        self._kill = kill
        self._interrupt = interrupt
        self._event_log = event_log
        self._channels: dict[int, Channel] = {}
        self._recently_late_s: deque[float] = deque(maxlen=5000)
        self._num_ended = 0
        self._seq = 0
        self._clock: WallClock  # from the start on
        self._failure = ""

    def kv_stats(self, payload_scale: float, probe_bytes_per_s: float | None) -> KVStats:
        *counts, overruns = self._kv.tolist()
        of_what = TransferCounts(*counts)._asdict()
        incidents = {name: of_what[name] for name in INCIDENTS}
        return KVStats(payload_scale, of_what["bytes_moved"], of_what["verified"], overruns, incidents, probe_bytes_per_s)

    def fidelity(self, foreign_cores: float) -> Fidelity:
        message_late_s, wakeup_late_s = np.array(self.message_late_s), np.array(self.wakeup_late_s)
        return Fidelity(message_late_s, wakeup_late_s, foreign_cores, self.clock_error_s, self.dilation)

    async def connect(self, endpoints: dict[int, Endpoint], secret: bytes) -> None:
        for peer, endpoint in endpoints.items():
            self._channels[peer] = await connect(
                endpoint.host, endpoint.port, secret, DRIVER, peer, self._on_frame, self._on_close
            )

    def report_death(self, machine: int, cause: str) -> None:
        """Ray says that the actor of `machine` is gone."""
        self._tell_scheduler(MachineDied(machine, cause), 0.0)  # it counts from when the scheduler hears of it

    def report_failure(self, cause: str) -> None:
        """The run cannot go on: it ends here, with what has been recorded."""
        self._failure = self._failure or cause

    async def run(self) -> HostLoad:
        """Returns when every request has ended. Raises RunError where the scheduler was lost before the first arrival."""
        if self._failure:
            raise RunError(self._failure)
        load = HostLoad()
        start = time.monotonic() + START_DELAY_S
        self._clock = WallClock(start, self.dilation)
        for channel in self._channels.values():
            channel.send(FrameKind.START, start, self.dilation)
        loop = asyncio.get_running_loop()
        for fault in self.run_config.faults:
            loop.call_later(max(0.0, self._clock.local(fault.at_s) - time.monotonic()), self._kill, fault.machine)
        await self._drive(load)
        if self._failure:
            self.interrupted = self._failure
        load.sample()
        await self._stop()
        return load

    async def _drive(self, load: HostLoad) -> None:
        workload, num_sent, has_ended = self.run_config.workload, 0, False
        requests = list(workload.rows())
        deadline_s = requests[-1][0] + self.run_config.max_drain_s
        give_up = float("inf")
        next_sample = 0.0
        while self._num_ended < len(workload) and not self._failure and time.monotonic() < give_up:
            now_s = self._clock.now_s()
            while num_sent < len(workload) and requests[num_sent][0] <= now_s + SEND_AHEAD_S and not has_ended:
                request = requests[num_sent]
                self._tell_scheduler(RequestArrived(num_sent, *request), request[0])
                num_sent += 1
            if self._interrupt.requested:
                self.interrupted = CAUSE
            if not has_ended and (self.interrupted or now_s > deadline_s):
                has_ended = True
                cause = drain_cause(self.run_config.max_drain_s)
                if self.interrupted:
                    cause = unfinished_cause(f"as the run was interrupted: {self.interrupted}")
                self._tell_scheduler(RunEnded(cause), now_s)
                give_up = time.monotonic() + STOP_TIMEOUT_S
            if has_ended and self._num_ended >= num_sent:
                return
            if time.monotonic() >= next_sample:
                next_sample = time.monotonic() + 1.0
                load.sample()
                late_p99_s = float(np.percentile(self._recently_late_s, 99)) if self._recently_late_s else 0.0
                num_arrived = int(np.searchsorted(workload.arrival_s, now_s, "right"))
                self.run_config.on_progress(Progress(max(0.0, now_s), num_arrived, self._num_ended, late_p99_s))
            await asyncio.sleep(TICK_S)

    async def _stop(self) -> None:
        for channel in self._channels.values():
            channel.send(FrameKind.STOP)
        give_up = time.monotonic() + STOP_TIMEOUT_S
        while self._channels and time.monotonic() < give_up:
            await asyncio.sleep(0.01)

    def _tell_scheduler(self, event: tuple, at_s: float) -> None:
        self._seq += 1
        if SCHEDULER in self._channels:
            self._channels[SCHEDULER].send(FrameKind.MESSAGE, DRIVER, SCHEDULER, at_s, self._seq, encode(event))

    # --- frames -------------------------------------------------------------------------------------------------------

    def _on_frame(self, channel: Channel, frame: tuple) -> None:
        if frame[0] == FrameKind.FACTS:
            self._take(Report(*frame[1:]))
        elif frame[0] == FrameKind.DONE:
            self._channels.pop(channel.peer, None)
            channel.close()

    def _on_close(self, channel: Channel) -> None:
        if self._channels.pop(channel.peer, None) is not None and channel.peer == SCHEDULER:
            self.report_failure("the scheduler actor is gone: its stream was closed")

    def _take(self, report: Report) -> None:
        self.num_events += report.num_events
        self.message_late_s += report.message_late_s
        self._recently_late_s += report.message_late_s
        self.wakeup_late_s += report.wakeup_late_s
        self._kv += report.kv
        self.clock_error_s = max(self.clock_error_s, report.clock_error_s)
        if self._event_log is not None:
            self._event_log.append_packed(report.packed_records)
        for record in unpack_records(report.packed_records):
            self.last_event_s = max(self.last_event_s, record.now_s)
            for action in record.actions:
                if type(action) in FACTS:
                    self.recorder.record(record.now_s, action)
                    if type(action) is RequestEnded:
                        self._num_ended += 1
                    elif type(action) is PoolChanged and action.pool == Pool.DEAD:
                        self._kill(action.machine)  # silent, perhaps, but not gone
