"""Real actors on two Ray nodes. What is asserted are counts, replays and equality with `virtual`; never a time.

Prefill takes 1 ms a token and a decode step 20 ms here, unless a test says otherwise.
"""

from contextlib import asynccontextmanager

import numpy as np
import pytest

from emu.results.columns import FAILED, FINISHED
from emu.results.report.page import _title
from emu.results.run_record import packing
from emu.runtime.errors import RunError
from emu.runtime.ray_runtime import shared_hosts
from emu.transfer.object_store import ObjectStore
from emu.transfer.settings import ObjectStoreSettings
from tests.transfer.settings import transfer_settings

pytestmark = pytest.mark.usefixtures("two_nodes")

BASE = (
    "runtime=ray",
    "timing=constant",
    "timing.prefill_s_per_token=1e-3",
    "timing.decode_step_s=0.02",
    "workload=fixed",
    "workload.prompt_tokens=100",
    "workload.output_tokens=20",
    "workload.arrivals=constant",
    "workload.rate_rps=5",
    "workload.duration_s=1",
    "transfer.payload_scale=0.01",
    "cluster.num_prompt=2",
    "cluster.num_token=2",
)
ONE_EACH = ("cluster.num_prompt=1", "cluster.num_token=1")  # each actor takes a second of a core to start


def requests_of(record):
    return record.recorder.columns().requests


def test_payloads_cross_nodes_and_are_verified(rehearse):
    record = rehearse(*BASE)
    requests = requests_of(record)
    assert (requests.status == FINISHED).all()
    assert (requests.attempts == 1).all()
    assert (record.kv.verified, set(record.kv.incidents.values())) == (len(requests), {0})
    assert record.kv.bytes_moved == sum(round(tokens * 327_680 * 0.01) for tokens in requests.prompt_tokens)


def test_large_payloads_come_in_pieces(rehearse):
    record = rehearse(*BASE, *ONE_EACH, "workload.prompt_tokens=300", "transfer.payload_scale=0.5", "workload.rate_rps=2")
    num_bytes = round(300 * 327_680 * 0.5)
    assert num_bytes > 2 * (16 << 20), "three pieces each"
    assert record.kv.bytes_moved == num_bytes * record.kv.verified == num_bytes * len(requests_of(record))


# At 16 MB/s a KV cache of 33 MB is under way for 2 s, beside those that come after it.
SHARED_NIC = ("cluster.num_token=1", "cluster.token_hardware.nic_bytes_per_s=16e6")
# With so long a control latency, messages are late only where a host stands still for most of it.
SLOW_CONTROL = (
    "runtime.control_latency_s=0.4",
    "workload.arrivals=poisson",
    "workload.rate_rps=8",
    "timing.prefill_s_per_token=3e-3",
)


def rehearse_without_lateness(rehearse, *overrides):
    for _ in range(3):
        record = rehearse(*overrides)
        if not record.fidelity.message_late_s.any():
            return record
    raise AssertionError("late in three runs out of three")


def assert_same_decisions(got, expected):
    for column in type(requests_of(expected)).__slots__:
        np.testing.assert_array_equal(getattr(requests_of(got), column), getattr(requests_of(expected), column), column)
    assert got.emulated_s == expected.emulated_s


def test_decides_as_virtual_where_nothing_is_late(rehearse):
    same = (*BASE, *SLOW_CONTROL, *SHARED_NIC, "transfer.payload_scale=0")
    virtual = rehearse(*same, "runtime=virtual")
    assert_same_decisions(rehearse_without_lateness(rehearse, *same), virtual)


SIX = ("cluster.num_prompt=3", "cluster.num_token=3")


def test_six_machines_in_two_actors_decide_as_six_in_six_and_as_virtual(rehearse):
    same = (*BASE, *SLOW_CONTROL, *SIX, "transfer.payload_scale=0.001")
    apart = rehearse_without_lateness(rehearse, *same)
    assert_same_decisions(apart, rehearse(*same, "runtime=virtual"))
    together = rehearse_without_lateness(rehearse, *same, "runtime.machines_per_actor=3")
    # p0 to p2 are in one, d0 to d2 in the other.
    assert [packing(record.host) for record in (apart, together)] == ["", "6 machines in 2 Ray actors"]
    assert _title(together).endswith("on 3 prefill and 3 decode machines (6 machines in 2 Ray actors)")
    assert_same_decisions(together, apart)
    assert together.kv.bytes_moved == apart.kv.bytes_moved and together.kv.verified == len(requests_of(together))


@pytest.mark.parametrize("transfer", ["object_store", "nixl"])
def test_machines_of_one_actor_hand_over_to_each_other(rehearse, transfer):
    if transfer == "nixl":
        pytest.importorskip("nixl_cu12")
    record = rehearse(*BASE, "runtime.machines_per_actor=3", f"transfer={transfer}", "transfer.payload_scale=0.01")
    # p0, p1 and d0 are in one, d1 in the other.
    requests = requests_of(record)
    assert set(requests.decode_on.tolist()) == {2, 3}
    assert (requests.status == FINISHED).all() and (requests.attempts == 1).all()
    assert (record.kv.verified, set(record.kv.incidents.values())) == (len(requests), {0})


BURST = (*BASE, *SIX, "workload.rate_rps=30", "workload.duration_s=0.2", "timing.decode_step_s=0.05")


@pytest.mark.parametrize(
    "dying",
    [("d0",), ("d0", "d1", "d2"), ("p0", "d1")],
    ids=["one of three", "all of an actor", "one of each actor"],
)
def test_machines_that_share_an_actor_die_alone(rehearse, dying):
    faults = ",".join(f"{{machine: {name}, at_s: 0.7}}" for name in dying)
    record = rehearse(*BURST, "runtime.machines_per_actor=3", f"faults=[{faults}]")
    columns, requests = record.recorder.columns(), requests_of(record)
    assert (requests.status == FINISHED).all() and (requests.num_ends == 1).all()
    dead = {spec.index for spec in record.machines if spec.name in dying}
    moves = columns.pool_moves
    assert set(moves.machine[moves.pool == "dead"].tolist()) == dead
    causes = set(columns.requeues.cause)
    assert causes and causes <= {f"machine {index} died: killed by faults" for index in dead}
    restarted = requests.attempts == 2
    assert restarted.any() and not np.isin(requests.decode_on[restarted], list(dead)).any()


@pytest.mark.parametrize(
    ("num_machines", "real", "each", "hosts"),
    [
        (6, (), 1, (0, 1, 2, 3, 4, 5)),
        (6, (), 3, (0, 0, 0, 3, 3, 3)),
        (5, (), 2, (0, 0, 2, 2, 4)),
        (5, (1,), 3, (0, 1, 2, 2, 2)),
        (4, (0, 3), 9, (0, 1, 1, 3)),
    ],
)
def test_which_machines_share_an_actor(num_machines, real, each, hosts):
    assert shared_hosts(num_machines, real, each) == hosts


def test_auto_payload_scale_is_measured_and_recorded(rehearse):
    record = rehearse(*BASE, *ONE_EACH, "transfer.payload_scale=auto")
    assert record.kv.probe_bytes_per_s > 0
    assert np.log2(record.kv.payload_scale) == int(np.log2(record.kv.payload_scale)) <= 0
    assert record.kv.verified == len(requests_of(record))


def test_a_colocated_cluster_moves_nothing(rehearse):
    record = rehearse(
        *[override for override in BASE if "cluster" not in override], "cluster=baseline_h100", "cluster.num_machines=2"
    )
    assert (requests_of(record).status == FINISHED).all()
    assert (record.kv.bytes_moved, record.kv.verified) == (0, 0)


class FlipsOneByte(ObjectStore):
    """The first message to each machine comes with one byte flipped."""

    has_flipped = False

    @asynccontextmanager
    async def receive(self, peer, ticket, num_bytes):
        async with super().receive(peer, ticket, num_bytes) as received:
            if not self.has_flipped:
                self.has_flipped = True
                received = received.copy()
                received[len(received) // 2] ^= 1
            yield received


class BreaksOnce(ObjectStore):
    """The first message to each machine ends with an exception that nobody foresaw."""

    has_broken = False

    @asynccontextmanager
    async def receive(self, peer, ticket, num_bytes):
        if not self.has_broken:
            self.has_broken = True
            raise RuntimeError("unforeseen")
        async with super().receive(peer, ticket, num_bytes) as received:
            yield received


class FlippingSettings(ObjectStoreSettings):
    def make(self, host):
        return FlipsOneByte(self.num_buffers, self.max_message_bytes)


class BreakingSettings(ObjectStoreSettings):
    def make(self, host):
        return BreaksOnce(self.num_buffers, self.max_message_bytes)


def test_a_wrong_payload_is_noticed_counted_and_sent_again(rehearse):
    record = rehearse(*BASE, *ONE_EACH, transfer=transfer_settings(FlippingSettings, payload_scale=0.01))
    requests = requests_of(record)
    num_destinations = len(set(requests.decode_on.tolist()))
    assert record.kv.incidents["corrupt"] == record.kv.incidents["resent"] == num_destinations
    assert record.kv.verified == len(requests)
    assert (requests.status == FINISHED).all()
    assert (requests.attempts == 1).all()


def test_what_cannot_be_pulled_never_joins_and_starts_again(rehearse):
    record = rehearse(*BASE, transfer=transfer_settings(BreakingSettings, payload_scale=0.01))
    columns = record.recorder.columns()
    requests = columns.requests
    # One that breaks before its offer is due is pulled again when it is.
    num_restarted, num_early = len(columns.requeues.request_id), np.count_nonzero(columns.drops.message == "KVLost")
    assert num_restarted + num_early == len(set(requests.decode_on.tolist()))
    assert (requests.attempts == 2).sum() == num_restarted
    assert all(cause.endswith("RuntimeError: unforeseen") for cause in columns.requeues.cause)
    assert (requests.status == FINISHED).all()
    assert record.kv.verified == len(requests)


# Names of machines and what the requests are doing when it dies. One burst at time 0, long phases.
DEATHS = {
    "in prefill": ("p0", 0.3, ("timing.prefill_s_per_token=1e-2",)),
    "in decode": ("d0", 0.8, ("timing.decode_step_s=0.05",)),
    "source in transfer": ("p0", 0.6, ("cluster.prompt_hardware.nic_bytes_per_s=2e7",)),
    "destination in transfer": ("d0", 0.6, ("cluster.prompt_hardware.nic_bytes_per_s=2e7",)),
}


@pytest.mark.parametrize(("machine", "at_s", "slow"), DEATHS.values(), ids=DEATHS)
def test_requests_of_a_dead_machine_start_again_elsewhere(rehearse, machine, at_s, slow):
    record = rehearse(
        *BASE, "workload.rate_rps=20", "workload.duration_s=0.2", *slow, f"faults=[{{machine: {machine}, at_s: {at_s}}}]"
    )
    columns = record.recorder.columns()
    requests = columns.requests
    assert (requests.num_ends == 1).all()
    assert (requests.status == FINISHED).all()
    assert (requests.num_tokens_out == requests.output_tokens).all()
    assert len(columns.requeues.request_id) == (requests.attempts == 2).sum() > 0
    dead = next(spec.index for spec in record.machines if spec.name == machine)
    assert set(columns.requeues.cause) == {f"machine {dead} died: killed by faults"}  # as in `virtual`, and not as noticed
    restarted = requests.attempts == 2
    assert not (requests.prefill_on[restarted] == dead).any()
    assert not (requests.decode_on[restarted] == dead).any()


@pytest.mark.parametrize("machine", ["p0", "d0"])
def test_the_last_of_a_pool_dies_and_the_other_pool_serves_both_phases(rehearse, machine):
    record = rehearse(*BASE, *ONE_EACH, "workload.rate_rps=10", f"faults=[{{machine: {machine}, at_s: 0.4}}]")
    requests = requests_of(record)
    assert (requests.num_ends == 1).all()
    assert (requests.status == FINISHED).all()
    survivor = next(spec.index for spec in record.machines if spec.name != machine)
    late = requests.arrival_s > 0.6
    assert (requests.prefill_on[late] == survivor).all()
    assert (requests.decode_on[late] == survivor).all()


def test_with_no_machine_left_requests_fail_with_the_cause(rehearse):
    record = rehearse(*BASE, *ONE_EACH, "faults=[{machine: p0, at_s: 0.3}, {machine: d0, at_s: 0.3}]")
    requests = requests_of(record)
    assert (requests.num_ends == 1).all()
    assert (requests.status == FAILED).any()
    causes = {requests.causes[cause] for cause in requests.cause[requests.status == FAILED]}
    assert causes == {"no machine is left alive"}


def test_dilation_slows_the_clock_and_changes_nothing_else(rehearse):
    same = ("runtime.control_latency_s=0.2", "transfer.payload_scale=0", "workload.rate_rps=3")
    records = [rehearse(*BASE, *ONE_EACH, *same, f"runtime.dilation={dilation}") for dilation in (1, 3)]
    first, slow = (requests_of(record).last_token_s for record in records)
    if not any(record.fidelity.message_late_s.any() for record in records):
        np.testing.assert_array_equal(first, slow)
    assert records[1].fidelity.dilation == 3


def test_more_machines_than_the_cluster_holds_is_said_before_any_starts(rehearse):
    with pytest.raises(RunError, match=r"4 machines and the scheduler do not fit the Ray cluster: 5 actors of .*hold 4"):
        rehearse(*BASE, "runtime.actor_memory_bytes=2000000000")


def test_unfinished_requests_fail_at_the_end_of_the_drain(rehearse):
    record = rehearse(*BASE, *ONE_EACH, "workload.output_tokens=5000", "metrics.max_drain_s=1")
    requests = requests_of(record)
    assert (requests.status == FAILED).all()
    assert {requests.causes[cause] for cause in requests.cause} == {"unfinished 1 s after the last arrival"}
