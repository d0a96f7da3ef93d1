"""Nodes of a Ray cluster: those of a running one, or of one on this host that lasts as long as it is needed."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.cluster_utils import Cluster

from emu.runtime.errors import RunError, gist
from emu.runtime.ray_start import check_token, starting_ray


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
    logging.getLogger("ray").setLevel(logging.ERROR)  # it tells of other clusters on this host
    cluster = None
    try:
        with starting_ray(address):
            if not address:
                node = {"num_cpus": 1, "object_store_memory": object_store_bytes, "include_dashboard": False}
                cluster = Cluster(initialize_head=True, head_node_args=node)
                for _ in range(num_nodes - 1):
                    cluster.add_node(**node)
            ray.init(address=address or cluster.address, log_to_driver=False, logging_level=logging.ERROR)
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
