"""Ray's part of a run: starting or joining a cluster, placing the actors, noticing their death, and cleaning up."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from emu.core.cluster import Cluster
from emu.core.messages import SCHEDULER
from emu.execution.real_machines import RealMachines
from emu.execution.torch_engine.errors import EngineError
from emu.runtime.errors import RunError, gist
from emu.runtime.fault import Fault
from emu.runtime.host import Endpoint, HostSettings
from emu.runtime.machine_host import MachineHost
from emu.runtime.ray_start import check_token, starting_ray
from emu.runtime.scheduler_host import SchedulerHost
from emu.runtime.transfer_host import KV_GROUP, NUM_KV_THREADS, PROBE_REQUEST
from emu.transfer.settings import TransferSettings

PROBE_S = 0.4
TIMED_OUT = "timed out during startup"  # as Ray says it


class RayCluster:
    """The actors of one run, in a Ray of its own (`address` empty) or in a running one. A context manager.

    Each actor declares `actor_memory_bytes`, so that too many machines are refused before any starts.
    """

    def __init__(self, address: str, actor_memory_bytes: int, object_store_bytes: int) -> None:
        self._address = address
        self._actor_memory_bytes = actor_memory_bytes
        self._object_store_bytes = object_store_bytes
        self._is_ours = False  # a Ray that is already connected in this process stays so
        self.hosts: dict[int, ActorHandle] = {}  # of machines
        self._machines: dict[int, set[int]] = {}  # of each host those that are not known to be dead
        self._host_of: Callable[[int], int]
        self.num_kv_blocks: dict[int, int] = {}  # that the real machines turned out to have
        self.scheduler: ActorHandle | None = None

    def __enter__(self) -> "RayCluster":
        if ray.is_initialized():
            check_token()
            return self
        quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
        try:
            with starting_ray(self._address):
                if self._address:
                    ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
                else:
                    self._start(quiet)
        except RunError:
            ray.shutdown()
            raise
        except Exception as error:  # Ray raises whatever its layers raise: all mean the same to the user
            where = f"join the Ray cluster at runtime.address={self._address}" if self._address else "start Ray"
            raise RunError(f"cannot {where}: {gist(error)}") from error
        self._is_ours = True
        return self

    def _start(self, quiet: dict[str, Any]) -> None:
        """Start a Ray. One that took longer than the 30 s that Ray allows, on a busy host, is started once more."""
        for is_last in (False, True):
            try:
                ray.init(address="local", object_store_memory=self._object_store_bytes, **quiet)
                return
            except Exception as error:
                if is_last or TIMED_OUT not in str(error):
                    raise
                ray.shutdown()

    def __exit__(self, *exception: object) -> None:
        for handle in (*self.hosts.values(), self.scheduler):
            if handle is not None:
                _kill(handle)
        if self._is_ours:
            ray.shutdown()

    def check_room(self, num_actors: int, num_machines: int) -> None:
        """Raises RunError where the nodes have too little memory for that many actors."""
        nodes = [node["Resources"].get("memory", 0.0) for node in ray.nodes() if node["Alive"]]
        room = sum(int(memory // self._actor_memory_bytes) for memory in nodes)
        if num_actors > room:
            raise RunError(
                f"{num_machines} machines and the scheduler do not fit the Ray cluster: {num_actors} actors of "
                f"runtime.actor_memory_bytes={self._actor_memory_bytes}, and its {len(nodes)} node(s) with "
                f"{sum(nodes) / 1e9:.2f} GB hold {room}"
            )

    async def start(
        self,
        cluster: Cluster,
        output_tokens: np.ndarray,
        settings: HostSettings,
        host: str,
        transfer: TransferSettings,
        on_status: Callable[[str], None],
        real: RealMachines | None,
        faults: Sequence[Fault],
    ) -> dict[int, Endpoint]:
        """Make all actors at once; return where each listens. Raises RunError where one does not come up."""
        self._host_of = settings.host_of
        for index, first in enumerate(settings.machine_hosts):
            self._machines.setdefault(first, set()).add(index)
        num_actors = len(self._machines) + 1
        needs: dict[int, dict[str, float]] = {}
        if real is not None:
            needs = {index: real.execution.needs(cluster, cluster.machines[index]) for index in real.indices}
        self.check_room(num_actors - len(needs), len(cluster.machines) - len(needs))
        _check_room_for_real(list(needs.values()))
        options = {"num_cpus": 0, "memory": self._actor_memory_bytes, "max_restarts": 0}
        # The run's clock is this host's: the scheduler stays here.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        make_scheduler: Any = ray.remote(SchedulerHost).options(scheduling_strategy=here, **options)
        scheduler = self.scheduler = make_scheduler.remote(cluster, settings, faults)
        # The description is the same for all: it is stored once.
        shared = ray.put(cluster)
        outputs = ray.put(output_tokens)
        common = (shared, outputs, settings, transfer, None if real is None else ray.put(real))
        make = ray.remote(concurrency_groups={KV_GROUP: NUM_KV_THREADS})  # type: ignore[call-overload]  # not in Ray's types
        for first, machines in self._machines.items():
            actor = make(MachineHost).options(scheduling_strategy="SPREAD", **options | needs.get(first, {}))
            self.hosts[first] = actor.remote(tuple(sorted(machines)), *common)
        hosts = {SCHEDULER: scheduler, **self.hosts}
        endpoints: dict[int, Endpoint] = {}
        transports: dict[int, Any] = {}  # where the transport of each host is reached

        async def listen(address: int, handle: ActorHandle) -> None:
            endpoints[address] = await handle.listen.remote(host)
            if address != SCHEDULER:
                self.num_kv_blocks |= await self._open_executors(cluster.machines[address].name, handle)
                transports[address] = await handle.open_transfer.remote(host)
            on_status(f"actors started: {len(endpoints)}/{num_actors}")

        try:
            await asyncio.gather(*(listen(address, handle) for address, handle in hosts.items()))
            on_status(f"connecting {num_actors} actors")
            await asyncio.gather(*(handle.connect_to.remote(endpoints, transports) for handle in self.hosts.values()))
        except RayError as error:
            raise RunError(f"an actor did not come up: {gist(error)}") from error
        return endpoints

    async def _open_executors(self, name: str, handle: ActorHandle) -> dict[int, int]:
        try:
            return await handle.open_executors.remote()
        except RayTaskError as error:
            raise RunError(
                f"{name}: {error.cause}" if isinstance(error.cause, EngineError) else f"{name}: {gist(error)}"
            ) from error

    async def move(self, payload_scale: float, max_tokens: int) -> None:
        """Have this fraction of the bytes of KV caches moved, which are of `max_tokens` tokens at most."""
        await asyncio.gather(*(handle.move.remote(payload_scale, max_tokens) for handle in self.hosts.values()))

    async def measure_transfer(self, source: int, destination: int, num_bytes: int) -> float:
        """Median seconds that a payload of `num_bytes` takes between two machines, copied, moved and verified.

        One after the other for PROBE_S, at least three.
        """
        sender, receiver = (self.hosts[self._host_of(machine)] for machine in (source, destination))
        took_s: list[float] = []
        start_s = time.perf_counter()
        while len(took_s) < 3 or time.perf_counter() - start_s < PROBE_S:
            key = (PROBE_REQUEST, len(took_s))
            await sender.hold.remote(*key, num_bytes)
            pulled = await receiver.pull.remote(self._host_of(source), *key, num_bytes)
            await sender.free.remote(*key)
            took_s.append(pulled.verified_s - pulled.start_s)
        await receiver.take_counts.remote()  # those of the run begin at none
        return median(took_s)

    async def watch(self, on_machine_death: Callable[[int, str], None], on_scheduler_death: Callable[[str], None]) -> None:
        """Call back on Ray's notice of an actor's death. Runs until cancelled."""

        async def watch_one(address: int, handle: ActorHandle) -> None:
            try:
                await handle.until_stopped.remote()
            except RayError as error:
                if address == SCHEDULER:
                    on_scheduler_death(f"the scheduler actor is gone: {gist(error)}")
                else:
                    for machine in sorted(self._machines[address]):
                        on_machine_death(machine, f"Ray: {gist(error)}")

        assert self.scheduler is not None
        hosts = {SCHEDULER: self.scheduler, **self.hosts}
        await asyncio.gather(*(watch_one(address, handle) for address, handle in hosts.items()))

    def kill(self, machine: int) -> None:
        """End a machine, and its actor once no other is left in it."""
        host = self._host_of(machine)
        self._machines[host].discard(machine)
        if self._machines[host]:
            self.hosts[host].end_machine.remote(machine, "it was killed")
        else:
            _kill(self.hosts[host])


def _check_room_for_real(needs: list[dict[str, float]]) -> None:
    """Raises RunError where the Ray cluster lacks what real machines declare, which would have them wait for ever."""
    resources = ray.cluster_resources()
    for option, resource, unit in (("memory", "memory", "bytes of memory"), ("num_gpus", "GPU", "GPUs")):
        needed, had = sum(of_one.get(option, 0) for of_one in needs), resources.get(resource, 0)
        if needed > had:
            raise RunError(f"{len(needs)} real machines need {needed:,.15g} {unit}, and the Ray cluster has {had:,.15g}")


def _kill(handle: ActorHandle) -> None:
    with contextlib.suppress(RayError, ValueError):
        ray.kill(handle, no_restart=True)
