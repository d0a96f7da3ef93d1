"""What holds at every event of a run and at its end, checked on the state machines themselves."""

import math

import numpy as np

from emu.core.cluster import Cluster
from emu.core.machine import Machine
from emu.core.messages import NETWORK, FlowRequested, OfferKV, RunEnded
from emu.core.network import Network
from emu.core.pools import Pool
from emu.core.scheduler import Scheduler
from emu.results.columns import FAILED, Columns
from emu.results.event_log import pack_record


class Watch:
    """Takes the place of a runtime's event log, and so sees every event as soon as it has been handled.

    `packed` are the bytes that the log would have. `machines` has to be set before the run. A run that goes on at
    `deadline_s` never ends.
    """

    def __init__(self, cluster: Cluster, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self.machines: list[Machine] = []
        self.packed: list[bytes] = []
        self._kv_bytes_per_token = cluster.model.kv_bytes_per_token
        self._held_tokens: dict[tuple[int, int], int] = {}
        self._flow_bytes: dict[tuple[int, int], int] = {}

    def append(self, party: int, now_s: float, event: tuple, actions: list[tuple]) -> None:
        assert now_s < self._deadline_s
        self.packed.append(pack_record(party, now_s, event, actions))
        if party == NETWORK and type(event) is FlowRequested:
            self._flow_bytes[event.request_id, event.attempt] = event.num_bytes
        if party >= 0:
            for action in actions:
                if type(action) is OfferKV:
                    self._held_tokens[action.offer[:2]] = action.offer.num_tokens
            assert_blocks_add_up(self.machines[party])
            assert_does_what_it_may(self.machines[party])

    def assert_kv_bytes_add_up(self, columns: Columns) -> None:
        """KV bytes held at the source = sent = received = those of the prompt; what was sent in vain is of a lost attempt."""
        requests, transfers = columns.requests, columns.transfers
        received = zip(transfers.request_id.tolist(), transfers.attempt.tolist(), transfers.num_tokens.tolist(), strict=True)
        in_vain = dict(self._flow_bytes)
        from_scratch = np.char.startswith(columns.requeues.cause, "machine ")  # after a death
        kept_tokens = {*columns.requeues.request_id[~from_scratch].tolist()}
        for request_id, attempt, num_tokens in received:
            num_bytes = in_vain.pop((request_id, attempt))
            assert num_bytes == num_tokens * self._kv_bytes_per_token
            assert self._held_tokens[request_id, attempt] == num_tokens
            assert num_tokens >= requests.prompt_tokens[request_id]
            if request_id not in kept_tokens:
                assert num_tokens == requests.prompt_tokens[request_id]
        segments = columns.segments
        decodes = np.flatnonzero(~segments.is_prefill)
        decoded = {*zip(segments.request_id[decodes].tolist(), segments.attempt[decodes].tolist(), strict=True)}
        for request_id, attempt in in_vain:
            was_over_with_its_prefill = (request_id, attempt) not in decoded
            is_lost = attempt < requests.attempts[request_id] or requests.status[request_id] == FAILED
            assert is_lost or was_over_with_its_prefill


def assert_blocks_add_up(machine: Machine) -> None:
    """Used + free = all blocks, where used is counted sequence by sequence."""
    kv, decodes = machine.kv, machine.decodes
    holding = [*machine.prefilling, *(seq for seq in machine.prompts.waiting if seq.num_prefilled), *machine.holding.values()]
    others = [*machine.pulling.values(), *machine.ready.values(), *decodes.paused.values()]
    contexts = [seq.num_cached + kv.step - seq.joined_at + 1 for seq in decodes.active.values()]
    num_used = sum(seq.num_blocks for seq in holding + others) + sum(map(kv.blocks_for, contexts))
    assert num_used + kv.num_free == kv.num_blocks
    assert decodes.context_tokens == sum(contexts)
    num_held = sum(seq.num_blocks for seq in holding if seq.decode_on != machine.index)
    assert num_held == machine.prompts.num_held_blocks <= machine.prompts.max_held_blocks


def assert_does_what_it_may(machine: Machine) -> None:
    """No machine is idle while it has a step to run, and no KV cache waits for blocks that are free."""
    kv = machine.kv
    num_held_blocks = machine.prompts.num_held_blocks
    assert not (machine.inbound and kv.can_admit(kv.blocks_for(machine.inbound[0].num_cached + 1), num_held_blocks))
    if machine.num_steps_left:
        return
    assert not (machine.prefilling or machine.ready or machine.decodes.active or machine.decodes.paused)
    if machine.prompts.waiting:
        prompt = machine.prompts.waiting[0]
        may_hold = prompt.decode_on == machine.index or prompt.num_blocks <= machine.prompts.max_held_blocks - num_held_blocks
        assert not (may_hold and kv.can_admit(prompt.num_blocks, num_held_blocks))


def assert_nothing_is_left(scheduler: Scheduler, machines: list[Machine], network: Network) -> None:
    """Every request is over, every machine alive is empty and known to be, and nothing is on the links."""
    assert not scheduler.requests
    scheduler.handle(RunEnded("over"), math.inf)  # takes the reports of load still to come
    assert network.rates(math.inf) == {}
    for load, machine in zip(scheduler.pools.machines, machines, strict=True):
        assert (load.num_prefills, load.num_decodes, load.pending_prompt_tokens, load.kv_tokens) == (0, 0, 0, 0)
        if load.pool is not Pool.DEAD:
            assert load.pool is load.home
            assert machine.kv.num_used == machine.prompts.num_held_blocks == machine.num_steps_left == 0
            assert not any((machine.prompts.waiting, machine.holding, machine.inbound, machine.pulling, machine.ready))
