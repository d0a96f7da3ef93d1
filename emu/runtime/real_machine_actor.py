"""One machine of the cluster as a Ray actor that executes its steps, beside others that sleep."""

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from emu.core.cluster import Cluster
from emu.core.facts import ProbeStepRun
from emu.core.messages import DropAttempt, KVReady, ResumeOutput, SendOutput
from emu.core.timing.probe import DECODE, PREFILL
from emu.execution.prompts import Prompts
from emu.execution.settings import TorchExecution
from emu.execution.speed_probe import STEPS as PROBE_STEPS
from emu.execution.speed_probe import SpeedProbe
from emu.execution.step_thread import StepThread
from emu.execution.torch_engine.errors import EngineError
from emu.runtime.machine_actor import MachineActor
from emu.runtime.party import PartySettings
from emu.runtime.real_node import RealNode
from emu.transfer.cache_payload import CachePayload
from emu.transfer.destination import TransferFailed
from emu.transfer.payload import Payload
from emu.transfer.production import LiveProduction
from emu.transfer.settings import TransferSettings
from emu.transfer.source import AT_ONCE, Key

if TYPE_CHECKING:  # torch stays out of the driver's process, which imports this class
    from emu.execution.torch_engine.executor import Stepped, TorchExecutor

BLOCKS_POLL_S = 0.001


@dataclass(frozen=True, slots=True)
class RealMachines:
    """What the real machines of a run have in common: how they execute, and the tokens they are given."""

    execution: TorchExecution
    indices: frozenset[int]
    stop_ids: frozenset[int]
    prompts: Prompts
    seed: int


class StepEnd(NamedTuple):
    """An event of this machine's own: the step in flight is over."""

    stepped: "Stepped"


class RealMachineActor(MachineActor):
    """Party `index` of the run. Its steps run in a thread of their own and take as long as they take."""

    def __init__(
        self,
        index: int,
        cluster: Cluster,
        output_tokens: np.ndarray,
        settings: PartySettings,
        transfer_settings: TransferSettings,
        machines: RealMachines,
    ) -> None:
        super().__init__(index, cluster, output_tokens, settings, transfer_settings, machines.indices, machines.stop_ids)
        self._cluster, self._output_tokens, self._machines = cluster, output_tokens, machines
        self._layers_per_piece = cluster.layers_per_piece
        self.executor: TorchExecutor | None = None
        self._thread: StepThread | None = None
        self._probe: SpeedProbe | None = None
        self._phases: set[str] = set()  # of the steps that ran here
        # What the step in flight prefills and leaves layer by layer.
        self._leaving: dict[Key, tuple[Payload, LiveProduction]] = {}

    async def open_engine(self) -> int:
        """Load the model, in this process from now on, with as many of the declared KV blocks as there is memory for. Returns
        how many those are. Raises EngineError where it cannot be."""
        from emu.execution.torch_engine.device import max_kv_blocks
        from emu.execution.torch_engine.engine import load_engine
        from emu.execution.torch_engine.executor import TorchExecutor

        machines, cluster = self._machines, self._cluster
        execution, executable, block_tokens = machines.execution, cluster.model.executable, cluster.kind.block_tokens
        num_blocks, num_probe_blocks = cluster.machines[self.address].num_kv_blocks, SpeedProbe.num_blocks(block_tokens)
        max_blocks = max_kv_blocks(executable, execution.device, block_tokens)
        engine = await asyncio.to_thread(
            load_engine,
            executable,
            num_blocks=min(num_blocks + num_probe_blocks, max_blocks) or num_blocks,  # with none, it says what is lacking
            block_tokens=block_tokens,
            device=execution.device,
            num_threads=execution.num_threads,
        )
        self.executor = executor = TorchExecutor(
            engine,
            machines.prompts,
            self._output_tokens.tolist(),
            machines.stop_ids,
            execution.temperature,
            execution.top_p,
            machines.seed,
        )
        self._thread = StepThread()
        self._probe = SpeedProbe(engine)
        self.node = RealNode(self.node.machine, executor, self._tell_steps, self._launch)
        # In the thread of the steps, which has memory of its own from the C library.
        await self._thread.run(partial(executor.warm_up, machines.prompts.longest))
        return engine.cache.num_blocks - num_probe_blocks

    def on_start(self) -> None:
        super().on_start()
        if self._machines.execution.probe_interval_s:
            self.spawn(self._probe_speed(self._machines.execution.probe_interval_s))

    async def _probe_speed(self, interval_s: float) -> None:
        """Now and then time probe steps of the phases that run here, as long as there is nothing else to do."""
        while not self.stopped.is_set():
            await asyncio.sleep(interval_s)
            steps = [(phase, counts) for phase, counts in PROBE_STEPS if not counts or phase in self._phases]
            for phase, counts in steps if self._phases else ():
                if not self.node.is_idle or self.stopped.is_set():
                    break
                try:
                    step_s = await self._thread.run(partial(self._probe.step, phase))
                except Exception as error:
                    self.fail(error)
                    return
                if counts:
                    self.record_fact(self.address, self.clock.now_s(), ProbeStepRun(self.address, phase, step_s))

    # --- steps --------------------------------------------------------------------------------------------------------

    def _launch(self) -> None:
        executor, loop = self.executor, asyncio.get_running_loop()

        def step() -> "Stepped":
            return executor.step(lambda layer: loop.call_soon_threadsafe(self._on_layer, layer))

        self._phases.add(PREFILL if executor.num_prefills else DECODE)
        executor.begin_step()
        self._thread.start(step if executor.num_prefills else executor.step, self._on_step_end)

    def _on_layer(self, layer: int) -> None:
        """The K and V of a layer are there for what is being prefilled. The last piece waits for the token that goes along."""
        num_pieces = min((layer + 1) // self._layers_per_piece, self._num_pieces - 1)
        for _, production in self._leaving.values():
            production.advance(num_pieces)

    def _on_step_end(self, result: "Stepped | Exception", end_local: float) -> None:
        if isinstance(result, Exception):
            self.fail(result)
        elif not self.stopped.is_set():
            self.inbox.put(self.clock.emulated_s(end_local), self.address, self.next_seq(), StepEnd(result))

    def _on_event(self, event: object, now_s: float, sender: int) -> None:
        if type(event) is not StepEnd:
            super()._on_event(event, now_s, sender)
        elif not self.stopped.is_set():
            for answer in event.stepped.answers:
                self.record_fact(self.address, now_s, answer)
            for key, (payload, production) in self._leaving.items():
                payload.trailer = self.executor.output_ids(*key)
                production.advance(self._num_pieces)
            self._leaving = {}
            self.executor.end_step(event.stepped)
            if (done := self.node.end_step(event.stepped, now_s)) is not None:
                self._handle(done, now_s, sender)

    # --- what is here -------------------------------------------------------------------------------------------------

    def send_output(self, address: int, action: SendOutput, now_s: float, sender: int) -> None:
        message = action.message
        output_ids = self.executor.output_ids(message.request_id, message.attempt)
        self.post(address, action.to, now_s, message._replace(output_ids=output_ids))

    def resume_output(self, address: int, action: ResumeOutput, now_s: float, sender: int) -> None:
        self.executor.resume(*action)

    def drop_attempt(self, address: int, action: DropAttempt, now_s: float, sender: int) -> None:
        super().drop_attempt(address, action, now_s, sender)
        self.executor.drop(*action)

    def _free(self, key: Key) -> None:
        super()._free(key)
        self.executor.drop(*key)

    # --- KV caches ----------------------------------------------------------------------------------------------------

    def _pulls_ahead(self, offer: KVReady) -> bool:
        return False  # blocks that were then not reserved after all would be lacking in the steps

    def _hold(self, offer: KVReady) -> None:
        key, production = (offer.request_id, offer.attempt), AT_ONCE
        num_bytes = self._payload(*key, offer.num_tokens).num_bytes
        payload = CachePayload(num_bytes, self._num_pieces, self.executor.cache_of(*key, offer.num_tokens))
        if self.executor.is_prefilling(*key):
            production = LiveProduction()
            self._leaving[key] = (payload, production)
        else:
            payload.trailer = self.executor.output_ids(*key)
        self.transfer.hold(key, payload, production)

    async def _expect(self, source: int, key: Key, num_tokens: int) -> Payload:
        """The blocks are free, or will be in a moment: those of what was dropped come free with the step in flight."""
        expected = self._payload(*key, num_tokens)
        is_real = source in self._real
        give_up = time.monotonic() + self.transfer_settings.timeout_s
        while True:
            try:
                cache = self.executor.expect(*key, num_tokens, is_real)
                return CachePayload(expected.num_bytes, self._num_pieces, cache, None if is_real else expected)
            except EngineError as error:
                if time.monotonic() > give_up:
                    raise TransferFailed(f"no room for it at its destination: {error}") from error
                await asyncio.sleep(BLOCKS_POLL_S)

    def _take_trailer(self, key: Key, trailer: bytes) -> None:
        self.executor.complete(*key, trailer)
        super()._take_trailer(key, trailer)
