"""A host is one process of a run: its control port, its channels to the other hosts, its reports to the driver."""

import asyncio
import contextlib
import gc
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from emu.core.codec import decode, encode
from emu.core.facts import FACTS
from emu.core.messages import DRIVER, SCHEDULER
from emu.results.event_log import pack_record
from emu.runtime.clock import WallClock, estimate_offset, host_identity
from emu.runtime.wire import Channel, FrameKind, connect
from emu.transfer.counts import TransferCounts
from emu.transfer.worker import NICENESS


def _yield_to_this_thread() -> None:
    """Let this process's other threads, Ray's and the payloads', run after this one, the control plane's event loop."""
    own = threading.get_native_id()
    for thread in os.listdir("/proc/self/task"):
        if int(thread) != own:
            with contextlib.suppress(OSError):  # it has ended
                os.setpriority(os.PRIO_PROCESS, int(thread), NICENESS)


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What the driver tells every host when it makes it. The secret is the run's own; intervals are wall seconds.

    `machine_hosts` has the host of each machine: a host is known by the first of its machines.
    """

    secret: bytes = field(repr=False)  # Ray prints arguments in tracebacks and logs
    control_latency_s: float
    heartbeat_s: float
    facts_interval_s: float
    log_events: bool
    overrun_s: float
    machine_hosts: tuple[int, ...] = ()

    def host_of(self, address: int) -> int:
        """The host of a machine, or of the scheduler and the network, which share one."""
        return self.machine_hosts[address] if address >= 0 else SCHEDULER


class Report(NamedTuple):
    """The fields of a FACTS frame: what a host has done and measured since its last report."""

    packed_records: bytes
    num_events: int
    message_late_s: tuple[float, ...]
    wakeup_late_s: tuple[float, ...]
    kv: tuple[int, ...]  # TransferCounts, and how many transfers overran
    clock_error_s: float


class Endpoint(NamedTuple):
    """Where a host listens, and whose monotonic clock it runs on."""

    host: str
    port: int
    host_identity: str


NO_KV = (*TransferCounts(), 0)
GOLDEN_RATIO = 0.6180339887  # its multiples spread evenly over an interval, however many there are


class Host:
    """One process's end of the control plane. A subclass gives it its state machines, whose addresses are `hosted`.

    Order of calls: `listen`, `connect`, then the driver's START and STOP frames call `on_start` and `on_stop`.
    """

    def __init__(self, address: int, settings: HostSettings) -> None:
        self.address = address
        self.hosted = frozenset({address})
        self.settings = settings
        self.channels: dict[int, Channel] = {}
        self.clock: WallClock  # from START on
        self.is_started = False
        self.stopped: asyncio.Event = asyncio.Event()
        self.failure: Exception | None = None  # why this host cannot go on
        self._server: asyncio.Server | None = None
        self._offset = (0.0, 0.0)
        self._pong: asyncio.Future | None = None
        self._packed: list[bytes] = []
        self._num_events = 0
        self._seq = 0
        self._tasks: set[asyncio.Task] = set()

    # --- set-up -------------------------------------------------------------------------------------------------------

    async def listen(self, host: str) -> Endpoint:
        """Open the control port on `host`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Channel(self.settings.secret, None, self._on_frame, self._on_close, on_open=self._on_open), host, 0
        )
        return Endpoint(host, self._server.sockets[0].getsockname()[1], host_identity())

    async def connect(self, endpoints: dict[int, Endpoint]) -> None:
        """Connect to every host of a lower address than one's own; those of a higher one connect to this."""
        for peer, endpoint in sorted(endpoints.items()):
            if SCHEDULER <= peer < self.address:
                self.channels[peer] = await connect(
                    endpoint.host, endpoint.port, self.settings.secret, self.address, peer, self._on_frame, self._on_close
                )
        reference = endpoints.get(SCHEDULER)
        if self.address != SCHEDULER and reference is not None and reference.host_identity != host_identity():
            self._offset = await estimate_offset(self._ping)
        # What is here stays: a collection that visits all of Ray's objects again would hold everything up for milliseconds.
        gc.collect()
        gc.freeze()
        _yield_to_this_thread()

    async def until_stopped(self) -> None:
        """Return at the end of the run. Ray's notice of an actor's death is that this call fails. Raises `failure`."""
        await self.stopped.wait()
        if self.failure is not None:
            raise self.failure

    def fail(self, error: Exception) -> None:
        """Stop, for good: this host cannot go on."""
        self.failure = error
        self.stopped.set()

    async def _ping(self) -> float:
        self._pong = asyncio.get_running_loop().create_future()
        self.channels[SCHEDULER].send(FrameKind.PING)
        return await self._pong

    # --- what subclasses do -------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        """The clock is set: get ready."""

    def on_message(self, sender: int, receiver: int, due_s: float, seq: int, event: tuple) -> None:
        """A control message has come."""
        raise NotImplementedError

    def on_peer_lost(self, peer: int) -> None:
        """The channel to `peer` has closed."""

    def on_heartbeat(self, peer: int) -> None:
        """`peer` is alive."""

    def on_transfer_frame(self, peer: int, *fields: Any) -> None:
        """A frame of the KV transfers has come."""
        raise NotImplementedError

    def measurements(self) -> tuple[Iterable[float], Iterable[float], tuple]:
        """Lateness of messages and of wake-ups, and what the transfers count, since last asked."""
        raise NotImplementedError

    def before_report(self) -> None:
        """Last chance to record something for the report."""

    # --- while it runs ------------------------------------------------------------------------------------------------

    def next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def post(self, sender: int, receiver: int, now_s: float, message: tuple) -> None:
        """Deliver a control message one control latency from now; to a host that is gone, not at all."""
        self.post_due(sender, receiver, now_s + self.settings.control_latency_s, message)

    def post_due(self, sender: int, receiver: int, due_s: float, message: tuple) -> None:
        """The same at `due_s`."""
        if receiver in self.hosted:
            self.on_message(sender, receiver, due_s, self.next_seq(), message)
        elif (channel := self.channels.get(self.settings.host_of(receiver))) is not None:
            channel.send(FrameKind.MESSAGE, sender, receiver, due_s, self.next_seq(), encode(message))

    def record(self, address: int, now_s: float, event: tuple, actions: list[tuple]) -> None:
        """Keep an event and its actions for the next report: all of it with the event log on, else the facts."""
        self._num_events += 1
        if self.settings.log_events:
            self._packed.append(pack_record(address, now_s, event, actions))
        elif facts := [action for action in actions if type(action) in FACTS]:
            self._packed.append(pack_record(address, now_s, (), facts))

    def record_fact(self, address: int, now_s: float, fact: tuple) -> None:
        """Keep a fact that no state machine decided for the next report."""
        self._packed.append(pack_record(address, now_s, (), [fact]))

    def spawn(self, coroutine) -> asyncio.Task:
        """Run a task that is kept from being collected until it is done."""
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def report(self) -> None:
        """Send the driver what has been recorded and measured."""
        self.before_report()
        message_late_s, wakeup_late_s, kv = self.measurements()
        packed, self._packed = b"".join(self._packed), []
        num_events, self._num_events = self._num_events, 0
        error_s = self.clock.error_s
        report = Report(packed, num_events, tuple(message_late_s), tuple(wakeup_late_s), kv, error_s)
        if DRIVER in self.channels:
            self.channels[DRIVER].send(FrameKind.FACTS, *report)

    async def repeat(self, interval_s: float, action: Callable[[], None]) -> None:
        """Call `action` every `interval_s` until the run stops, at a phase of one's own.

        Hosts that all woke at the same instants would make each other late: by 5 ms at p99 with 40 of them on two cores.
        """
        await asyncio.sleep(interval_s * (self.address * GOLDEN_RATIO % 1.0))
        while not self.stopped.is_set():
            action()
            await asyncio.sleep(interval_s)

    # --- frames -------------------------------------------------------------------------------------------------------

    def _on_open(self, channel: Channel) -> None:
        self.channels[channel.peer] = channel

    def _on_close(self, channel: Channel) -> None:
        if self.channels.get(channel.peer) is channel:
            del self.channels[channel.peer]
        if channel.peer == DRIVER:
            self.stopped.set()  # nobody is left to report to
        elif not self.stopped.is_set():
            self.on_peer_lost(channel.peer)

    def _on_frame(self, channel: Channel, frame: tuple) -> None:
        kind = frame[0]
        if kind == FrameKind.MESSAGE:
            _, sender, receiver, due_s, seq, message = frame
            if not self.stopped.is_set() and self.is_started:
                self.on_message(sender, receiver, due_s, seq, decode(message))
        elif kind == FrameKind.TRANSFER:
            self.on_transfer_frame(channel.peer, *frame[1:])
        elif kind == FrameKind.HEARTBEAT:
            self.on_heartbeat(channel.peer)
        elif kind == FrameKind.PING:
            channel.send(FrameKind.PONG, time.monotonic())
        elif kind == FrameKind.PONG:
            if self._pong is not None and not self._pong.done():
                self._pong.set_result(frame[1])
        elif kind == FrameKind.START:
            self.clock = WallClock(frame[1], frame[2], *self._offset)
            self.on_start()
            self.is_started = True
            self.spawn(self.repeat(self.settings.facts_interval_s, self.report))
        elif kind == FrameKind.STOP:
            self.report()
            self.stopped.set()
            channel.send(FrameKind.DONE)
