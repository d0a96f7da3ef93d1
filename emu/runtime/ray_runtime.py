"""The cluster as Ray actors on the wall clock, with KV payloads that really move."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Collection
from typing import TypeVar

import ray
from ray.exceptions import RayError

from emu.core import setting
from emu.execution.real_machines import RealMachines
from emu.execution.settings import TorchExecution
from emu.results.event_log import EventLog
from emu.results.run_record import RunRecord
from emu.runtime.driver import Driver
from emu.runtime.errors import NotStartedError, RunError, gist
from emu.runtime.host import HostSettings
from emu.runtime.interrupt import Interrupt
from emu.runtime.pace import AUTO, Pace, choose_pace
from emu.runtime.ray_address import check_address
from emu.runtime.ray_cluster import RayCluster
from emu.runtime.ray_nodes import check_room
from emu.runtime.run_config import RunConfig
from emu.transfer.settings import TransferSettings

T = TypeVar("T")


class RayRuntime:
    """Runs a rehearsal as one Ray actor a machine, one scheduler actor and this process as the driver.

    With `machines_per_actor` > 1, so many emulated machines share an actor; those that execute have one each.

    `address` empty starts a local Ray, whatever RAY_ADDRESS says; else that cluster is joined. `host` is the address that
    control ports listen on. `dilation` is wall seconds per emulated second; `auto` is the least at
    which the KV bytes keep up: see `choose_dilation`. `heartbeat_s` and `facts_interval_s` are wall
    seconds. Raises SettingError for values out of range.
    """

    name = "ray"
    logs_events = True

    def __init__(
        self,
        control_latency_s: float,
        report_period_s: float,
        dilation: float | str,
        address: str,
        host: str,
        actor_memory_bytes: int,
        object_store_bytes: int,
        heartbeat_s: float,
        facts_interval_s: float,
        machines_per_actor: int,
    ) -> None:
        self.control_latency_s = setting.seconds_or_zero("runtime.control_latency_s", control_latency_s)
        self.report_period_s = setting.period_s_or_zero("runtime.report_period_s", report_period_s)
        if isinstance(dilation, str) and dilation != AUTO:
            raise setting.SettingError(f"runtime.dilation={dilation}: expected auto or a number > 0")
        self.dilation = dilation if isinstance(dilation, str) else setting.positive("runtime.dilation", dilation)
        self.address = address or ""
        self.host = host
        self.actor_memory_bytes = setting.whole("runtime.actor_memory_bytes", actor_memory_bytes, 1, 1 << 50)
        self.object_store_bytes = setting.whole("runtime.object_store_bytes", object_store_bytes, 80_000_000, 1 << 50)
        self.heartbeat_s = setting.period_s("runtime.heartbeat_s", heartbeat_s)
        self.facts_interval_s = setting.period_s("runtime.facts_interval_s", facts_interval_s)
        self.machines_per_actor = setting.whole("runtime.machines_per_actor", machines_per_actor, 1)

    def check(self, num_machines: int, transfer: TransferSettings) -> None:
        """Raises SettingError or TransferError where no Ray answers at `address`, or this environment lacks what `transfer`
        needs or this host the memory for so many machines."""
        if self.address:
            check_address("runtime.address", self.address)
        elif not ray.is_initialized():
            check_room(num_machines, self.machines_per_actor, self.actor_memory_bytes, self.object_store_bytes)
        transfer.check(0 if self.address else num_machines)

    def run(self, run_config: RunConfig) -> RunRecord:
        """Run to the end and return the record. Raises NotStartedError; a later failure ends the record early.

        To be called in the main thread: Ctrl-C ends a run with its record, and one that has not started without.
        """
        try:
            with contextlib.ExitStack() as stack:
                interrupt = stack.enter_context(Interrupt())
                run_config.on_status("starting Ray")
                cluster = stack.enter_context(RayCluster(self.address, self.actor_memory_bytes, self.object_store_bytes))
                event_log = None
                if run_config.log_events:
                    event_log = stack.enter_context(EventLog(run_config.run_dir / "events.msgpack"))
                return asyncio.run(self._run(run_config, cluster, event_log, interrupt))
        except RunError as error:
            raise NotStartedError(str(error)) from error

    async def _run(
        self, run_config: RunConfig, actors: RayCluster, event_log: EventLog | None, interrupt: Interrupt
    ) -> RunRecord:
        cluster, set_up_start = run_config.cluster, time.perf_counter()
        real = _real_machines(run_config)
        machine_hosts = shared_hosts(len(cluster.machines), real.indices if real else (), self.machines_per_actor)
        settings = HostSettings(
            secret=secrets.token_bytes(32),
            control_latency_s=self.control_latency_s,
            heartbeat_s=self.heartbeat_s,
            facts_interval_s=self.facts_interval_s,
            log_events=run_config.log_events,
            overrun_s=run_config.overrun_s,
            machine_hosts=machine_hosts,
        )

        async def set_up() -> tuple[Driver, Pace]:
            outputs, faults = run_config.workload.output_tokens, run_config.faults
            endpoints = await actors.start(
                cluster, outputs, settings, self.host, run_config.transfer, run_config.on_status, real, faults
            )
            try:
                pace = await choose_pace(run_config, actors, self.dilation)
            except RayError as error:
                raise RunError(f"transfer={run_config.transfer.name}: no KV payload gets through: {gist(error)}") from error
            await actors.move(pace.payload_scale, int(run_config.workload.prompt_tokens.max()))
            driver = Driver(run_config, pace.dilation, actors.kill, event_log, interrupt)
            await driver.connect(endpoints, settings.secret)
            return driver, pace

        driver, pace = await _unless_interrupted(set_up(), interrupt)
        watch = asyncio.ensure_future(actors.watch(driver.report_death, driver.report_failure))
        wall_start = time.perf_counter()
        load = await driver.run()
        watch.cancel()
        own_cores, foreign_cores = load.cores()
        return RunRecord(
            runtime=self.name,
            seed=run_config.seed,
            cluster=cluster,
            recorder=driver.recorder,
            emulated_s=driver.last_event_s,
            num_events=driver.num_events,
            kv=driver.kv_stats(pace.payload_scale, pace.probed_bytes_per_s),
            fidelity=driver.fidelity(foreign_cores),
            interrupted=driver.interrupted,
            wall_start=wall_start,
            real=tuple(sorted(actors.num_kv_blocks)),
            num_kv_blocks_had=actors.num_kv_blocks,
            faults=tuple((fault.machine, fault.at_s) for fault in run_config.faults),
            host={
                "ray": {
                    "version": ray.__version__,
                    "num_machines": len(cluster.machines),
                    "num_machine_actors": len(actors.hosts),
                    "num_nodes": sum(node["Alive"] for node in ray.nodes()),
                    "own_cores": own_cores,
                    "set_up_s": wall_start - set_up_start,
                }
            },
        )


def shared_hosts(num_machines: int, real: Collection[int], machines_per_actor: int) -> tuple[int, ...]:
    """The host of each machine, by the first that it has: neighbours share one, and those of `real` have one each."""
    firsts: list[int] = []
    for index in range(num_machines):
        is_new = not firsts or index - firsts[-1] == machines_per_actor or not {index, index - 1}.isdisjoint(real)
        firsts.append(index if is_new else firsts[-1])
    return tuple(firsts)


def _real_machines(run_config: RunConfig) -> RealMachines | None:
    """What the machines that execute have in common; None where there are none."""
    execution, cluster, workload = run_config.execution, run_config.cluster, run_config.workload
    if not isinstance(execution, TorchExecution):
        return None
    indices = frozenset(execution.real_machines(cluster.machines))
    prompts = execution.prompts(cluster.model, workload.prompt_tokens, workload.prompt_ids, run_config.seed)
    return RealMachines(execution, indices, execution.stop_ids(cluster.model), prompts, run_config.seed)


async def _unless_interrupted(work: Awaitable[T], interrupt: Interrupt) -> T:
    """The result of `work`. Raises KeyboardInterrupt, and drops the work, on Ctrl-C before that."""
    task = asyncio.ensure_future(work)
    while not (await asyncio.wait({task}, timeout=0.1))[0]:
        if interrupt.requested:
            task.cancel()
            raise KeyboardInterrupt
    return task.result()
