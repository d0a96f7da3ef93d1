"""Actors that do nothing but transfers, each connected to all others: to measure and to test them."""

import secrets
from collections.abc import Sequence
from typing import Any

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from emu.runtime.host import HostSettings
from emu.runtime.transfer_host import KV_GROUP, NUM_KV_THREADS, TransferHost
from emu.transfer.destination import Pulled
from emu.transfer.settings import TransferSettings


class TransferMesh:
    """An actor on each of `nodes` (IDs; one may be there several times), by its number. A context manager.

    `host_type` is the actors' class, by default one that holds and pulls payloads and does no more. They listen on the address
    that Ray knows their node by. Raises what Ray raises where one does not come up.
    """

    def __init__(self, settings: TransferSettings, nodes: Sequence[str], host_type: type[TransferHost] = TransferHost) -> None:
        self.handles: list[ActorHandle] = []
        self._num_moved = 0
        secret = secrets.token_bytes(32)
        host_settings = HostSettings(secret, 0.005, 10.0, 0.5, log_events=False, overrun_s=0.005)
        hosts = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        actor = ray.remote(concurrency_groups={KV_GROUP: NUM_KV_THREADS})(host_type)  # type: ignore[call-overload]  # not in Ray's types
        for index, node in enumerate(nodes):
            here = NodeAffinitySchedulingStrategy(node, soft=False)
            self.handles.append(actor.options(num_cpus=0, scheduling_strategy=here).remote(index, host_settings, settings))
        everyone = range(len(nodes))
        try:
            endpoints = ray.get([self.start(index, "listen", hosts[nodes[index]]) for index in everyone])
            addresses = ray.get([self.start(index, "open_transfer", hosts[nodes[index]]) for index in everyone])
            described = dict(enumerate(endpoints)), dict(enumerate(addresses))
            ray.get([self.start(index, "connect_to", *described) for index in everyone])
            ray.get([self.start(index, "touch", settings.max_message_bytes) for index in everyone])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "TransferMesh":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self, index: int, method: str, *arguments: Any, **keywords: Any) -> ObjectRef:
        """Call a method of an actor."""
        return getattr(self.handles[index], method).remote(*arguments, **keywords)

    def call(self, index: int, method: str, *arguments: Any, **keywords: Any) -> Any:
        """What a method of an actor returns."""
        return ray.get(self.start(index, method, *arguments, **keywords), timeout=120)

    def move(self, source: int, destination: int, num_bytes: int, num_pieces: int = 1, production_s: float = 0.0) -> Pulled:
        """Have `destination` pull a payload from `source`, whose pieces come into being in the next `production_s`."""
        self._num_moved += 1
        key = (self._num_moved, 1)
        self.call(source, "hold", *key, num_bytes, num_pieces, production_s)
        try:
            return self.call(destination, "pull", source, *key, num_bytes, num_pieces, production_s)
        finally:
            self.call(source, "free", *key)

    def kill(self, index: int) -> None:
        ray.kill(self.handles[index], no_restart=True)

    def close(self) -> None:
        for index in range(len(self.handles)):
            self.kill(index)
