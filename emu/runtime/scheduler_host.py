"""The host of the scheduler, with the network in it: fairness on the links is global, as placement is."""

import time
from collections.abc import Sequence

from emu.core.cluster import Cluster
from emu.core.facts import KILLED_BY_FAULTS
from emu.core.messages import DRIVER, NETWORK, SCHEDULER, FlowEndSet, MachineDied, RunStarted, Send, SetFlowEnd, SetTimer
from emu.runtime.effects import Effects
from emu.runtime.fault import Fault
from emu.runtime.host import NO_KV, Host, HostSettings
from emu.runtime.inbox import Inbox


class SchedulerHost(Host, Effects):
    """Hosts the scheduler and the network, and notices hosts of machines that close their stream or fall silent.

    If one of `faults` was due for a machine that dies, that is the recorded cause, however the death was noticed.
    """

    def __init__(self, cluster: Cluster, settings: HostSettings, faults: Sequence[Fault]) -> None:
        super().__init__(SCHEDULER, settings)
        self.hosted = frozenset({SCHEDULER, NETWORK})
        self.scheduler = cluster.make_scheduler()
        self.network = cluster.make_network()
        self.inbox: Inbox
        self.network_inbox: Inbox
        self._alive = set(range(len(cluster.machines)))
        self._last_heard: dict[int, float] = {}  # by host
        self._faults = faults

    # --- host ---------------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        self.inbox = Inbox(self.clock, self._on_scheduler_event, self.fail)
        # The network answers with times, which have to be at the destination by then. Of the latency of the request that
        # stands for the way to the source, half is left for the answer.
        lead_s = self.settings.control_latency_s / 2
        self.network_inbox = Inbox(self.clock, self._on_network_event, self.fail, lead_s)
        self._on_scheduler_event(RunStarted(), 0.0, DRIVER)
        self._last_heard = dict.fromkeys(self.settings.machine_hosts, time.monotonic())
        self.spawn(self.repeat(self.settings.heartbeat_s / 4, self._watch))

    def on_message(self, sender: int, receiver: int, due_s: float, seq: int, event: tuple) -> None:
        if type(event) is MachineDied:
            self._declare_dead(event.machine, event.cause)
        elif sender == DRIVER:
            self.inbox.put(due_s, sender, seq, event)  # no message of the modelled system: sent ahead, or at once
        else:
            self._inbox_of(receiver).put_message(due_s, sender, seq, event)

    def on_heartbeat(self, peer: int) -> None:
        if peer in self._last_heard:
            self._last_heard[peer] = time.monotonic()

    def on_peer_lost(self, peer: int) -> None:
        if peer >= 0 and self.is_started:
            self._declare_host_dead(peer, "its stream was closed")

    def measurements(self) -> tuple[list[float], list[float], tuple]:
        messages, wakeups = self.inbox.take_lateness()
        network_messages, network_wakeups = self.network_inbox.take_lateness()
        return messages + network_messages, wakeups + network_wakeups, NO_KV

    def _watch(self) -> None:
        """Declare hosts dead that have said nothing for `heartbeat_s`."""
        limit_s, now = self.settings.heartbeat_s, time.monotonic()
        for host in [host for host, heard in self._last_heard.items() if now - heard > limit_s]:
            self._declare_host_dead(host, f"silent for {limit_s:g} s")

    def _declare_host_dead(self, host: int, cause: str) -> None:
        """All its machines are."""
        self._last_heard.pop(host, None)
        for index, its_host in enumerate(self.settings.machine_hosts):
            if its_host == host:
                self._declare_dead(index, cause)

    def _declare_dead(self, index: int, cause: str) -> None:
        if index in self._alive:
            self._alive.remove(index)
            now_s = self.clock.now_s()
            if any(fault.machine == index and fault.at_s <= now_s for fault in self._faults):
                cause = KILLED_BY_FAULTS
            self.inbox.put(now_s, DRIVER, self.next_seq(), MachineDied(index, cause))

    # --- events and actions -------------------------------------------------------------------------------------------

    def _on_scheduler_event(self, event: tuple, now_s: float, sender: int) -> None:
        if self.stopped.is_set():
            return
        actions = self.scheduler.handle(event, now_s)
        self.record(SCHEDULER, now_s, event, actions)
        self.perform(SCHEDULER, actions, now_s, sender)

    def _on_network_event(self, event: tuple, now_s: float, sender: int) -> None:
        if self.stopped.is_set():
            return
        actions = self.network.handle(event, now_s)
        self.record(NETWORK, now_s, event, actions)
        self.perform(NETWORK, actions, now_s, sender)

    def send(self, address: int, action: Send, now_s: float, sender: int) -> None:
        self.post(address, action.to, now_s, action.message)

    def set_timer(self, address: int, action: SetTimer, now_s: float, sender: int) -> None:
        self._inbox_of(address).put(action.at_s, address, self.next_seq(), action.message)

    def set_flow_end(self, address: int, action: SetFlowEnd, now_s: float, sender: int) -> None:
        # Due as of now: until then, what was said of the flow before holds.
        self.post_due(address, action.destination, now_s, FlowEndSet(action.request_id, action.attempt, action.at_s))

    def _inbox_of(self, address: int) -> Inbox:
        return self.network_inbox if address == NETWORK else self.inbox
