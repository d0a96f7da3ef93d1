"""The scheduler beside machines of the published simulator: it learns what its placement has to know at once."""

from emu.compat.splitwise_sim.load import SplitwiseSimLoad
from emu.compat.splitwise_sim.placement import SplitwiseSim
from emu.core.message import Message
from emu.core.messages import KVTransferred, QueueChanged
from emu.core.placement.policy import PlacementPolicy
from emu.core.pools import MachineLoad, Pool
from emu.core.repurposing import NEVER, RepurposingPolicy
from emu.core.request import Phase, Request
from emu.core.scheduler import Scheduler


class SplitwiseSimScheduler(Scheduler):
    """Keeps the loads' own counts. Where `SplitwiseSim` places, that policy says which machines join the mixed pool."""

    def __init__(
        self,
        machines: list[SplitwiseSimLoad],
        placement: PlacementPolicy,
        repurposing: RepurposingPolicy = NEVER,
        report_period_s: float = 0.0,
    ) -> None:
        super().__init__(machines, placement, repurposing, report_period_s)
        self._handlers[QueueChanged] = self._on_queue_changed
        self._loads = machines
        self._num_moves = len(machines)

    def _on_queue_changed(self, event: QueueChanged, now_s: float, actions: list[Message]) -> None:
        self._loads[event.machine].has_queue = event.is_waiting

    def _on_kv_transferred(self, event: KVTransferred, now_s: float, actions: list[Message]) -> None:
        super()._on_kv_transferred(event, now_s, actions)
        request = self.requests.get(event.request_id)
        if request is not None and request.attempt == event.attempt:
            self._end_hold(request)
            self._loads[request.decode_on].arrive_decode(request)

    def _withdraw(self, request: Request, now_s: float, actions: list[Message]) -> None:
        super()._withdraw(request, now_s, actions)
        if request.phase is not Phase.DECODING:
            self._end_hold(request)

    def _end_hold(self, request: Request) -> None:
        if request.prefill_on != request.decode_on:
            source = self._loads[request.prefill_on]
            source.end_hold(request)
            self.pools.changed(source)

    def _join_mixed_pool(
        self, request: Request, prefill_on: MachineLoad, decode_on: MachineLoad, actions: list[Message]
    ) -> None:
        if isinstance(self.placement, SplitwiseSim):
            for machine in self.placement.taken:
                self._move(machine, Pool.MIXED, actions)
        else:
            super()._join_mixed_pool(request, prefill_on, decode_on, actions)

    def _move(self, machine: MachineLoad, pool: Pool, actions: list[Message]) -> None:
        self._loads[machine.index].turn = self._num_moves
        self._num_moves += 1
        super()._move(machine, pool, actions)
