"""One Ray cluster for the whole test run: two nodes with small stores, so that node crossings are always tested."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from emu.build import build, compose
from emu.results.run_record import RunRecord

STORE_BYTES = 256 << 20
NODE_MEMORY_BYTES = 4 << 30


@pytest.fixture(scope="session")
def two_nodes():
    """A Ray cluster of two nodes on this host; this process is connected to it."""
    import ray
    from ray.cluster_utils import Cluster

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
    """Run what the overrides configure, with its event log in `tmp_path`/NAME; returns the record."""

    def run(*overrides: str, name: str = "run", transfer_type: type | None = None) -> RunRecord:
        run_dir = tmp_path / name
        run_dir.mkdir()
        plan = build(compose(list(overrides)))
        if transfer_type is not None:
            plan.runtime.transfer_type = transfer_type
        return plan.runtime.run(plan.rehearse(run_dir=run_dir, log_events=True))

    return run
