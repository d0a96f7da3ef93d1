"""The KV caches on their way out of a machine and into it."""

from emu.compat.splitwise_sim.memory import Memory
from emu.compat.splitwise_sim.task import Task
from emu.core.attempts import Attempts
from emu.core.facts import KVHandedOver
from emu.core.message import Message
from emu.core.messages import (
    NETWORK,
    SCHEDULER,
    Cancelled,
    FlowRequested,
    FreeKV,
    KVPulled,
    KVReady,
    KVTransferred,
    OfferKV,
    PullKV,
    Send,
    SetTimer,
)


class Handovers:
    """`holding`: prefilled here, until the destination has it. `inbound`: offered, without memory yet; `pulling`: coming.

    A hand-over starts when the whole prompt is done and there is memory for it and the next token at its destination. Where
    there is none, that is asked again every `retry_s`, for each on its own: a later one may come first.
    """

    def __init__(self, index: int, memory: Memory, kv_bytes_per_token: int, retry_s: float) -> None:
        self.holding: dict[int, Task] = {}
        self.inbound: dict[int, Task] = {}
        self.pulling: dict[int, Task] = {}
        self._index = index
        self._memory = memory
        self._kv_bytes_per_token = kv_bytes_per_token
        self._retry_s = retry_s

    def hold(self, task: Task, actions: list[Message]) -> None:
        """Offer what has been prefilled. `task` holds its memory already."""
        self.holding[task.request_id] = task
        key, num_tokens = (task.request_id, task.attempt), task.prompt_tokens
        ready = KVReady(*key, task.arrival_s, num_tokens, task.num_generated + 1, self._index, 0.0, 0.0)
        actions.append(OfferKV(task.decode_on, ready))

    def release(self, task: Task, actions: list[Message]) -> None:
        del self.holding[task.request_id]
        self._memory.release(task.held_bytes)
        actions.append(FreeKV(task.request_id, task.attempt))

    def is_retry(self, event: KVReady) -> bool:
        task = self.inbound.get(event.request_id)
        return task is not None and task.attempt == event.attempt

    def expect(self, task: Task, event: KVReady, now_s: float) -> None:
        """`task` is the decode of an offer that has just come."""
        task.source, task.ready_s = event.source, now_s
        self.inbound[event.request_id] = task

    def has_room(self, event: KVReady) -> bool:
        return (event.num_tokens + 1) * self._kv_bytes_per_token <= self._memory.num_free

    def try_pull(self, event: KVReady, now_s: float, actions: list[Message]) -> None:
        """Take the memory and start the transfer, or ask again later."""
        if not self.has_room(event):
            actions.append(SetTimer(now_s + self._retry_s, event))
            return
        request_id, attempt, _, num_tokens, _, source, _, _ = event
        task = self.pulling[request_id] = self.inbound.pop(request_id)
        task.held_bytes = (num_tokens + 1) * self._kv_bytes_per_token
        self._memory.reserve(task.held_bytes)
        task.pull_s = now_s
        num_bytes = num_tokens * self._kv_bytes_per_token
        flow = FlowRequested(request_id, attempt, source, self._index, num_bytes, now_s, now_s, 1)
        actions.append(PullKV(flow))

    def received(self, task: Task, actions: list[Message]) -> None:
        """It is here and verified: tell everybody."""
        del self.pulling[task.request_id]
        key = (task.request_id, task.attempt)
        actions.append(Send(task.source, KVPulled(*key)))
        actions.append(Send(SCHEDULER, KVTransferred(*key)))
        actions.append(KVHandedOver(*key, task.source, self._index, task.num_cached, task.ready_s, task.pull_s))

    def call_off(self, request_id: int, attempts: Attempts, actions: list[Message]) -> None:
        """Forget the attempts of a request that are over."""
        if attempts.is_over(self.inbound.get(request_id)):
            del self.inbound[request_id]
        if attempts.is_over(self.holding.get(request_id)):
            self.release(self.holding[request_id], actions)
        if attempts.is_over(self.pulling.get(request_id)):
            task = self.pulling.pop(request_id)
            self._memory.release(task.held_bytes)
            actions.append(Send(NETWORK, Cancelled(request_id, task.attempt)))
