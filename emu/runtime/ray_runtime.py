"""The cluster as Ray actors on the wall clock, with KV payloads that really move."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable
from typing import TypeVar

import ray

from emu.core import setting
from emu.core.pools import Role
from emu.results.event_log import EventLog
from emu.results.run_record import RunRecord
from emu.runtime.driver import Driver
from emu.runtime.interrupt import Interrupt
from emu.runtime.party import PartySettings
from emu.runtime.ray_cluster import RayCluster
from emu.runtime.rehearsal import Rehearsal
from emu.transfer.payload_scale import LARGE_BYTES, SMALL_BYTES, TransferProbe, choose_payload_scale

T = TypeVar("T")


class RayRuntime:
    """Runs a rehearsal as one Ray actor a machine, one scheduler actor and this process as the driver.

    `address` empty starts a local Ray, whatever RAY_ADDRESS says; else that cluster is joined. `host` is the address that
    control ports listen on. `dilation` is wall seconds per emulated second. `heartbeat_s` and `facts_interval_s` are wall
    seconds. Raises SettingError for values out of range.
    """

    name = "ray"
    logs_events = True
    name = "ray"
    logs_events = True

    def __init__(
        self,
        control_latency_s: float,
        report_period_s: float,
        dilation: float,
        address: str,
        host: str,
        actor_memory_bytes: int,
        object_store_bytes: int,
        heartbeat_s: float,
        facts_interval_s: float,
    ) -> None:
        self.control_latency_s = setting.not_negative("runtime.control_latency_s", control_latency_s)
        self.report_period_s = setting.not_negative("runtime.report_period_s", report_period_s)
        self.dilation = setting.positive("runtime.dilation", dilation)
        self.address = address or ""
        self.host = host
        self.actor_memory_bytes = setting.whole("runtime.actor_memory_bytes", actor_memory_bytes, 1, 1 << 50)
        self.object_store_bytes = setting.whole("runtime.object_store_bytes", object_store_bytes, 80_000_000, 1 << 50)
        self.heartbeat_s = setting.positive("runtime.heartbeat_s", heartbeat_s)
        self.facts_interval_s = setting.positive("runtime.facts_interval_s", facts_interval_s)

    def run(self, rehearsal: Rehearsal) -> RunRecord:
        """Run to the end and return the record. Raises RunError where it cannot start; a later failure ends the record early.

        To be called in the main thread: Ctrl-C ends a run with its record, and one that has not started without.
        """
        with contextlib.ExitStack() as stack:
            interrupt = stack.enter_context(Interrupt())
            rehearsal.on_status("starting Ray")
            cluster = stack.enter_context(RayCluster(self.address, self.actor_memory_bytes, self.object_store_bytes))
            event_log = None
            if rehearsal.log_events:
                event_log = stack.enter_context(EventLog(rehearsal.run_dir / "events.msgpack"))
            return asyncio.run(self._run(rehearsal, cluster, event_log, interrupt))

    async def _run(
        self, rehearsal: Rehearsal, actors: RayCluster, event_log: EventLog | None, interrupt: Interrupt
    ) -> RunRecord:
        settings = PartySettings(
            secret=secrets.token_bytes(32),
            control_latency_s=self.control_latency_s,
            heartbeat_s=self.heartbeat_s,
            facts_interval_s=self.facts_interval_s,
            log_events=rehearsal.log_events,
            overrun_s=rehearsal.overrun_s,
        )
        cluster, set_up_start = rehearsal.cluster, time.perf_counter()
        driver = Driver(rehearsal, self.dilation, actors.kill, event_log, interrupt)

        async def set_up() -> tuple[float, float | None]:
            endpoints = await actors.start(
                cluster, rehearsal.workload.output_tokens, settings, self.host, rehearsal.transfer, rehearsal.on_status
            )
            await driver.connect(endpoints, settings.secret)
            return await self._choose_payload_scale(rehearsal, actors)

        payload_scale, probed = await _unless_interrupted(set_up(), interrupt)
        watch = asyncio.ensure_future(actors.watch(driver.report_death, driver.report_failure))
        wall_start = time.perf_counter()
        load = await driver.run()
        watch.cancel()
        own_cores, foreign_cores = load.cores()
        return RunRecord(
            runtime=self.name,
            seed=rehearsal.seed,
            cluster=cluster,
            recorder=driver.recorder,
            emulated_s=driver.last_event_s,
            num_events=driver.num_events,
            kv=driver.kv_stats(payload_scale, probed),
            fidelity=driver.fidelity(foreign_cores),
            interrupted=driver.interrupted,
            wall_start=wall_start,
            host={
                "ray": {
                    "version": ray.__version__,
                    "num_nodes": sum(node["Alive"] for node in ray.nodes()),
                    "own_cores": own_cores,
                    "set_up_s": wall_start - set_up_start,
                }
            },
        )

    async def _choose_payload_scale(self, rehearsal: Rehearsal, actors: RayCluster) -> tuple[float, float | None]:
        """The fraction of KV bytes to move, and the measured bytes a second that it was chosen by, if it was."""
        scale, probed = rehearsal.transfer.payload_scale, None
        if scale == "auto":
            scale = 1.0
            by_role = {spec.role: spec for spec in rehearsal.cluster.machines}
            if Role.PREFILL in by_role and Role.DECODE in by_role:
                pair = (by_role[Role.PREFILL], by_role[Role.DECODE])
                sizes = (SMALL_BYTES, LARGE_BYTES)
                probe = TransferProbe(*[await actors.measure_transfer(pair[0].index, pair[1].index, size) for size in sizes])
                probed = probe.bytes_per_s
                workload = rehearsal.workload
                mean_bytes = workload.total_prompt_tokens / len(workload) * rehearsal.cluster.model.kv_bytes_per_token
                transfers_per_s = workload.mean_rate_rps / self.dilation
                # From the pull's start to the end of the flow: the request to the source, then the bytes.
                flow_s = mean_bytes / min(spec.hardware.nic_bytes_per_s for spec in pair)
                modelled_s = (self.control_latency_s + flow_s) * self.dilation
                scale = choose_payload_scale(probe, transfers_per_s, mean_bytes, modelled_s)
                rehearsal.on_status(
                    f"KV payloads: moved by {rehearsal.transfer.name} and verified here at {probed / 1e9:.2f} GB/s (64 KiB in "
                    f"{probe.small_s * 1e3:.1f} ms), wanted at {transfers_per_s * mean_bytes / 1e9:.2f} GB/s: "
                    f"payload_scale={scale:g}"
                )
        await actors.move(scale)
        return scale, probed


async def _unless_interrupted(work: Awaitable[T], interrupt: Interrupt) -> T:
    """The result of `work`. Raises KeyboardInterrupt, and drops the work, on Ctrl-C before that."""
    task = asyncio.ensure_future(work)
    while not (await asyncio.wait({task}, timeout=0.1))[0]:
        if interrupt.requested:
            task.cancel()
            raise KeyboardInterrupt
    return task.result()
