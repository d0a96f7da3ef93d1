"""What runs a rehearsal in a test."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from emu.build import build, compose
from emu.results.invariants import Ended, violations
from emu.results.ledger import handover_ledger
from emu.results.run_record import RunRecord
from tests.runtime.replay import assert_replays


@pytest.fixture
def rehearse(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., RunRecord]:
    """Run what the overrides configure, and return its record.

    Whatever the run, its event log replays to the same actions and its facts keep the invariants.
    """

    def run(*overrides: str, **rehearsal_fields) -> RunRecord:
        run_dir = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        run_dir.mkdir()
        plan = build(compose(list(overrides)))
        if rehearsal_fields:  # with what a test defines, whose module actors cannot import
            ray.cloudpickle.register_pickle_by_value(request.module)
        run_config = replace(plan.run_config, run_dir=run_dir, log_events=True, **rehearsal_fields)
        record = plan.runtime.run(run_config)
        assert assert_replays(run_config.cluster, run_dir / "events.msgpack") == record.num_events
        columns = record.recorder.columns()
        has_death = "dead" in columns.pool_moves.pool
        ledger = handover_ledger(columns, record.cluster, record.real, record.kv.payload_scale)
        assert violations(Ended(columns, ledger, bool(record.interrupted), may_lose_facts=has_death)) == []
        return record

    return run
