"""The global scheduler: who prefills and who decodes each request, who is in which pool, and what becomes of lost requests."""

from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any

from emu.core.facts import PoolChanged, RequestEnded, RequestPlaced, RequestRequeued, StaleDropped
from emu.core.message import Message
from emu.core.messages import (
    NETWORK,
    Assigned,
    Cancelled,
    KVTransferFailed,
    KVTransferred,
    MachineDied,
    PrefillDone,
    RequestArrived,
    RequestEvicted,
    RequestFinished,
    RequestRejected,
    RunEnded,
    RunStarted,
    Send,
)
from emu.core.placement.policy import PlacementPolicy
from emu.core.pools import MachineLoad, Pool, Pools
from emu.core.reports import Reports
from emu.core.repurposing import NEVER, RepurposingPolicy
from emu.core.request import Phase, Request

Handler = Callable[[Any, float, list[Message]], None]  # of one type of event, its time, and the actions that it adds to
OfAttempt = PrefillDone | KVTransferred | KVTransferFailed | RequestFinished | RequestEvicted | RequestRejected
MAX_TRANSFER_FAILURES = 3  # of one request: what fails so often will fail again, and each start costs a prefill


class Scheduler:
    """State machine of the scheduler. It alone ends requests; `requests` are those not yet ended.

    What it knows of the machines is what it assigned and what they have reported, every `report_period_s` seconds (0: at
    once): nothing of outputs to come. A request whose KV cache cannot be handed over starts again, with the tokens that are
    out, wherever `placement` says, perhaps on the same two machines; the `max_transfer_failures`-th time it fails.
    """

    def __init__(
        self,
        machines: Seq[MachineLoad],
        placement: PlacementPolicy,
        repurposing: RepurposingPolicy = NEVER,
        report_period_s: float = 0.0,
        max_transfer_failures: int = MAX_TRANSFER_FAILURES,
    ) -> None:
        self.pools = Pools(machines)
        self.placement = placement
        self.repurposing = repurposing
        self.reports = Reports(report_period_s, len(machines)) if report_period_s else None
        self.requests: dict[int, Request] = {}
        self._max_transfer_failures = max_transfer_failures
        self._handlers: dict[type, Handler] = {
            RunStarted: self._on_run_started,
            RequestArrived: self._on_arrived,
            PrefillDone: self._on_prefill_done,
            KVTransferred: self._on_kv_transferred,
            KVTransferFailed: self._on_kv_transfer_failed,
            RequestFinished: self._on_finished,
            RequestEvicted: self._on_evicted,
            RequestRejected: self._on_rejected,
            MachineDied: self._on_machine_died,
            RunEnded: self._on_run_ended,
        }

    def handle(self, event: Message, now_s: float) -> list[Message]:
        """Take one event and return what is to be done, in order."""
        actions: list[Message] = []
        if self.reports is not None:
            for machine, change, request in self.reports.take(now_s):
                self._unload(machine, change, request, actions)
        self._handlers[type(event)](event, now_s, actions)
        return actions

    # --- events -------------------------------------------------------------------------------------------------------

    def _on_run_started(self, event: RunStarted, now_s: float, actions: list[Message]) -> None:
        actions += [PoolChanged(machine.index, str(machine.pool)) for machine in self.pools.machines]

    def _on_arrived(self, event: RequestArrived, now_s: float, actions: list[Message]) -> None:
        request_id, arrival_s, prompt_tokens, predicted_output_tokens = event
        request = Request(request_id, arrival_s, prompt_tokens, predicted_output_tokens)
        self.requests[request_id] = request
        if (move := self.repurposing.choose(self.pools, now_s)) is not None:
            self._repurpose(*move, actions)
        self._place(request, now_s, actions)

    def _on_prefill_done(self, event: PrefillDone, now_s: float, actions: list[Message]) -> None:
        request = self._current(event, actions)
        if request is not None and request.phase is Phase.PREFILLING:
            self._leave_prefill(request, now_s, actions)
            request.output_ids = event.output_ids
            colocated = request.prefill_on == request.decode_on
            request.move_to(Phase.DECODING if colocated else Phase.TRANSFERRING, now_s)

    def _on_kv_transferred(self, event: KVTransferred, now_s: float, actions: list[Message]) -> None:
        request = self._current(event, actions)
        if request is not None:
            if request.phase is Phase.PREFILLING:  # its PrefillDone is late
                self._leave_prefill(request, now_s, actions)
            request.move_to(Phase.DECODING, now_s)

    def _on_kv_transfer_failed(self, event: KVTransferFailed, now_s: float, actions: list[Message]) -> None:
        request = self._current(event, actions)
        if request is None:
            return
        request.num_transfer_failures = num_failures = request.num_transfer_failures + 1
        cause = f"its KV cache did not get from machine {request.prefill_on} to machine {request.decode_on}: {event.cause}"
        if num_failures == self._max_transfer_failures:
            self._fail(request, f"{cause} (failed transfer {num_failures} of at most {num_failures})", now_s, actions)
        else:
            actions.append(RequestRequeued(request.request_id, request.attempt, False, cause))
            # Its first token is known to be out, unless layers left before their prefill was over.
            num_generated = request.num_generated + (request.phase is Phase.TRANSFERRING)
            self._start_again(request, num_generated, request.output_ids, now_s, actions)

    def _on_finished(self, event: RequestFinished, now_s: float, actions: list[Message]) -> None:
        request = self._current(event, actions)
        if request is not None:
            self._withdraw(request, now_s, actions)
            self._end(request, Phase.FINISHED, "", now_s, actions)

    def _on_evicted(self, event: RequestEvicted, now_s: float, actions: list[Message]) -> None:
        request = self._current(event, actions)
        if request is not None:
            actions.append(RequestRequeued(request.request_id, request.attempt, True, "no KV block was left for it"))
            self._start_again(request, event.num_generated, event.output_ids, now_s, actions)

    def _on_rejected(self, event: RequestRejected, now_s: float, actions: list[Message]) -> None:
        request = self._current(event, actions)
        if request is not None:
            self._fail(request, event.cause, now_s, actions)

    def _on_machine_died(self, event: MachineDied, now_s: float, actions: list[Message]) -> None:
        machine = self.pools.machines[event.machine]
        if machine.pool is Pool.DEAD:
            return
        self.pools.move(machine, Pool.DEAD)
        actions.append(PoolChanged(machine.index, str(Pool.DEAD)))
        actions.append(Send(NETWORK, event))
        cause = f"machine {machine.index} died: {event.cause}"
        for request in list(self.requests.values()):
            needs_source = request.phase in (Phase.PREFILLING, Phase.TRANSFERRING)
            if request.decode_on == machine.index or (needs_source and request.prefill_on == machine.index):
                actions.append(RequestRequeued(request.request_id, request.attempt, False, cause))
                # From scratch: only the dead machine knew how far it was.
                self._start_again(request, 0, b"", now_s, actions)

    def _on_run_ended(self, event: RunEnded, now_s: float, actions: list[Message]) -> None:
        for request in list(self.requests.values()):
            self._fail(request, event.cause, now_s, actions)

    # --- a request's starts and its end -------------------------------------------------------------------------------

    def _place(self, request: Request, now_s: float, actions: list[Message]) -> None:
        if len(self.pools[Pool.DEAD]) == len(self.pools.machines):
            self._end(request, Phase.FAILED, "no machine is left alive", now_s, actions)
            return
        prefill_on, decode_on = self.placement.place(request, self.pools)
        request.prefill_on, request.decode_on = prefill_on.index, decode_on.index
        prefill_on.add_prefill(request)
        decode_on.add_decode(request)
        self._join_mixed_pool(request, prefill_on, decode_on, actions)
        request.move_to(Phase.PREFILLING, now_s)
        request_id, attempt, decode_index = request.request_id, request.attempt, decode_on.index
        actions.append(RequestPlaced(request_id, attempt, prefill_on.index, decode_index))
        arrival_s, num_tokens, num_generated = request.arrival_s, request.prefill_tokens, request.num_generated
        task = Assigned(request_id, attempt, arrival_s, num_tokens, num_generated, decode_index, request.output_ids)
        actions.append(Send(prefill_on.index, task))

    def _join_mixed_pool(
        self, request: Request, prefill_on: MachineLoad, decode_on: MachineLoad, actions: list[Message]
    ) -> None:
        """Where machines are to work for the other pool; decoding a short answer directly is none of its work."""
        if prefill_on.pool is Pool.TOKEN:
            self._move(prefill_on, Pool.MIXED, actions)
        if decode_on.pool is Pool.PROMPT and not request.decodes_directly:
            self._move(decode_on, Pool.MIXED, actions)

    def _repurpose(self, machine: MachineLoad, home: Pool, actions: list[Message]) -> None:
        """Give the machine another home; what it still has of the other kind it does in the mixed pool."""
        machine.home = home
        pool = home if machine.can_go_home else Pool.MIXED
        if machine.pool is not pool:
            self._move(machine, pool, actions)

    def _start_again(
        self, request: Request, num_generated: int, output_ids: bytes, now_s: float, actions: list[Message]
    ) -> None:
        self._withdraw(request, now_s, actions)
        self._cancel(request, actions)
        request.attempt += 1
        request.num_generated = num_generated
        request.output_ids = output_ids
        request.move_to(Phase.QUEUED, now_s)
        self._place(request, now_s, actions)

    def _fail(self, request: Request, cause: str, now_s: float, actions: list[Message]) -> None:
        self._withdraw(request, now_s, actions)
        self._cancel(request, actions)
        self._end(request, Phase.FAILED, cause, now_s, actions)

    def _end(self, request: Request, phase: Phase, cause: str, now_s: float, actions: list[Message]) -> None:
        request.move_to(phase, now_s)
        del self.requests[request.request_id]
        actions.append(RequestEnded(request.request_id, request.attempt, cause))

    def _cancel(self, request: Request, actions: list[Message]) -> None:
        """Tell the machines that still have to do with this attempt to forget it."""
        for index in dict.fromkeys((request.prefill_on, request.decode_on)):
            if self.pools.machines[index].pool is not Pool.DEAD:
                actions.append(Send(index, Cancelled(request.request_id, request.attempt)))

    # --- load ---------------------------------------------------------------------------------------------------------

    def _leave_prefill(self, request: Request, now_s: float, actions: list[Message]) -> None:
        machine = self.pools.machines[request.prefill_on]
        self._end_task(machine, machine.end_prefill, request, now_s, actions)

    def _withdraw(self, request: Request, now_s: float, actions: list[Message]) -> None:
        """Take the attempt off its machines' loads."""
        if request.phase is Phase.PREFILLING:
            self._leave_prefill(request, now_s, actions)
        machine = self.pools.machines[request.decode_on]
        self._end_task(machine, machine.end_decode, request, now_s, actions)

    def _end_task(
        self,
        machine: MachineLoad,
        change: Callable[[Request], None],
        request: Request,
        now_s: float,
        actions: list[Message],
    ) -> None:
        if self.reports is None:
            self._unload(machine, change, request, actions)
        else:
            self.reports.put(now_s, machine, change, request)

    def _unload(
        self, machine: MachineLoad, change: Callable[[Request], None], request: Request, actions: list[Message]
    ) -> None:
        change(request)
        if machine.pool is Pool.MIXED and machine.home is not Pool.MIXED and machine.can_go_home:
            self._move(machine, machine.home, actions)
        else:
            self.pools.changed(machine)

    def _move(self, machine: MachineLoad, pool: Pool, actions: list[Message]) -> None:
        self.pools.move(machine, pool)
        actions.append(PoolChanged(machine.index, str(pool)))

    def _current(self, event: OfAttempt, actions: list[Message]) -> Request | None:
        request = self.requests.get(event.request_id)
        if request is None or request.attempt != event.attempt:
            actions.append(StaleDropped(event.request_id, event.attempt, type(event).__name__))
            return None
        return request
