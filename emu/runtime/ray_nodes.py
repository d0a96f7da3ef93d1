"""Nodes of a Ray cluster: those of a running one, or of one on this host that lasts as long as it is needed."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private.utils import estimate_available_memory
from ray.cluster_utils import Cluster

from emu.core.setting import SettingError
from emu.runtime.errors import RunError, gist
from emu.runtime.ray_address import check_address
from emu.runtime.ray_start import check_token, starting_ray


def check_room(num_machines: int, machines_per_actor: int, actor_memory_bytes: int, object_store_bytes: int) -> None:
    """Raises SettingError where a Ray started on this host would have too little memory for the actors of a run.

    Ray's own estimate, which it declares as its resource `memory` less the object store.
    """
    left = max(0, estimate_available_memory() - object_store_bytes)
    room = int(left // actor_memory_bytes)
    if -(-num_machines // machines_per_actor) + 1 > room:
        raise SettingError(
            f"runtime.actor_memory_bytes={actor_memory_bytes}: {num_machines} machines and the scheduler do not fit this host, "
            f"which has {left / 1e9:.2f} GB of memory left beside runtime.object_store_bytes={object_store_bytes}; expected "
            f"at most {max(0, room - 1) * machines_per_actor} machines, or less for each of them"
        )


@contextmanager
def ray_nodes(address: str, num_nodes: int, object_store_bytes: int) -> Iterator[list[str]]:
    """A context in which this process has joined a Ray cluster; its value are the IDs of the nodes that are alive.

    It is the one at `address`, or where that is '' one of `num_nodes` nodes, all on this host, each with an object store of so
    many bytes. A Ray that this process has joined before is used, and stays. Raises RunError.
    """
    if ray.is_initialized():
        check_token()
        yield _alive()
        return
    if address:
        try:
            check_address("--address", address)
        except SettingError as error:
            raise RunError(str(error)) from error
    logging.getLogger("ray").setLevel(logging.ERROR)  # it tells of other clusters on this host
    cluster = None
    try:
        with starting_ray(address):
            if not address:
                unused: dict[str, Any] = {"include_dashboard": False, "include_log_monitor": False}
                node = {"num_cpus": 1, "object_store_memory": object_store_bytes, **unused}
                cluster = Cluster(initialize_head=True, head_node_args=node)
                for _ in range(num_nodes - 1):
                    cluster.add_node(**node)
            joined = address if cluster is None else cluster.address
            ray.init(address=joined, log_to_driver=False, logging_level=logging.ERROR)
    except RunError:
        ray.shutdown()
        raise
    except Exception as error:  # Ray raises whatever its layers raise: all mean the same to the user
        if cluster is not None:
            cluster.shutdown()
        what = f"join the Ray cluster at {address}" if address else f"start a Ray cluster of {num_nodes} node(s) here"
        raise RunError(f"cannot {what}: {gist(error)}") from error
    try:
        yield _alive()
    finally:
        ray.shutdown()
        if cluster is not None:
            cluster.shutdown()


def _alive() -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]
