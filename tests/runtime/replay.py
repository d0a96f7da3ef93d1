"""An event log says exactly what happened: fresh state machines, fed its events, answer with its actions."""

from pathlib import Path

from emu.core.cluster import Cluster
from emu.core.messages import NETWORK, SCHEDULER
from emu.results.event_log import read_event_log


def assert_replays(cluster: Cluster, log: Path) -> int:
    """Replay every record; returns how many there were."""
    parties = {spec.index: cluster.make_machine(spec.index) for spec in cluster.machines}
    parties[SCHEDULER], parties[NETWORK] = cluster.make_scheduler(), cluster.make_network()
    num_records = 0
    for record in read_event_log(log):
        if type(record.event) is tuple:
            continue  # a fact of the execution, which answers none
        assert tuple(parties[record.party].handle(record.event, record.now_s)) == record.actions, record.event
        num_records += 1
    return num_records
