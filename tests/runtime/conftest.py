"""One Ray cluster for the whole test run: two nodes with small stores, so that node crossings are always tested."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from emu.build import build, compose
from emu.results.invariants import Ended, violations
from emu.results.ledger import handover_ledger
from emu.results.run_record import RunRecord
from tests.runtime.replay import assert_replays

STORE_BYTES = 256 << 20
NODE_MEMORY_BYTES = 4 << 30


@pytest.fixture(scope="session")
def two_nodes():
    """A Ray cluster of two nodes on this host; this process is connected to it."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    node = {"num_cpus": 1, "memory": NODE_MEMORY_BYTES, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **node})
    cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def rehearse(tmp_path: Path) -> Callable[..., RunRecord]:
    """Run what the overrides configure, and return its record.

    Whatever the run, its event log replays to the same actions and its facts keep the invariants.
    """

    def run(*overrides: str, transfer_type: type | None = None, **rehearsal_fields) -> RunRecord:
        run_dir = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        run_dir.mkdir()
        plan = build(compose(list(overrides)))
        if transfer_type is not None:
            ray.cloudpickle.register_pickle_by_value(sys.modules[transfer_type.__module__])  # actors cannot import tests
            plan.runtime.transfer_type = transfer_type
        rehearsal = plan.rehearse(run_dir=run_dir, log_events=True, **rehearsal_fields)
        record = plan.runtime.run(rehearsal)
        assert assert_replays(rehearsal.cluster, run_dir / "events.msgpack") == record.num_events
        columns = record.recorder.columns()
        has_death = "dead" in columns.pool_moves.pool
        ledger = handover_ledger(columns, record.cluster)
        assert violations(Ended(columns, ledger, bool(record.interrupted), may_lose_facts=has_death)) == []
        return record

    return run
