"""Machines that execute their steps with torch, in a thread beside the event loop of their process."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from emu.core.batch import Batch
from emu.core.cluster import Cluster
from emu.core.facts import OutputWritten
from emu.core.timing.probe import DECODE, PREFILL
from emu.execution.model import block_tokens_of, executable_of
from emu.execution.prompts import Prompts
from emu.execution.settings import TorchExecution
from emu.execution.speed_probe import STEPS as PROBE_STEPS
from emu.execution.speed_probe import SpeedProbe
from emu.execution.step_thread import StepThread

if TYPE_CHECKING:  # torch stays out of the driver's process, which imports this module
    from emu.execution.torch_engine.executor import Stepped, TorchExecutor
    from emu.execution.torch_engine.sequence_cache import SequenceCache


@dataclass(frozen=True, slots=True)
class RealMachines:
    """What the real machines of a run have in common: how they execute, and the tokens they are given."""

    execution: TorchExecution
    indices: frozenset[int]
    stop_ids: frozenset[int]
    prompts: Prompts
    seed: int


class ThreadExecutor:
    """Executes the steps of machine `index` with an engine of its own. An `Executor`.

    Nobody knows when a step will end: each is begun as the one before has been dealt with.
    """

    has_kv_caches = True

    def __init__(self, machines: RealMachines, cluster: Cluster, index: int, output_tokens: Sequence[int]) -> None:
        self._machines, self._cluster, self._index, self._output_tokens = machines, cluster, index, output_tokens
        self.probe_interval_s = machines.execution.probe_interval_s
        self.num_more_steps = 0
        self._sequences: TorchExecutor
        self._thread: StepThread
        self._probe: SpeedProbe
        self._on_step: Callable[[Exception | None, float], None]
        self._on_layer: Callable[[int], None]
        self._stepped: Stepped
        self._phases: set[str] = set()  # of the steps that ran here

    async def open(self, on_step: Callable[[Exception | None, float], None], on_layer: Callable[[int], None]) -> int:
        """Load the model, in this process from now on, with as many of the declared KV blocks as there is memory for. Returns
        how many those are. Raises EngineError where it cannot be."""
        from emu.execution.torch_engine.device import max_kv_blocks
        from emu.execution.torch_engine.engine import load_engine
        from emu.execution.torch_engine.executor import TorchExecutor

        machines, cluster = self._machines, self._cluster
        execution, executable, block_tokens = machines.execution, executable_of(cluster.model), block_tokens_of(cluster)
        num_blocks, num_probe_blocks = cluster.machines[self._index].num_kv_blocks, SpeedProbe.num_blocks(block_tokens)
        max_blocks = max_kv_blocks(executable, execution.device, block_tokens)
        engine = await asyncio.to_thread(
            load_engine,
            executable,
            num_blocks=min(num_blocks + num_probe_blocks, max_blocks) or num_blocks,  # with none, it says what is lacking
            block_tokens=block_tokens,
            device=execution.device,
            num_threads=execution.num_threads,
        )
        sampling = (execution.temperature, execution.top_p, machines.seed)
        self._sequences = TorchExecutor(engine, machines.prompts, self._output_tokens, machines.stop_ids, *sampling)
        self._on_step, self._on_layer = on_step, on_layer
        self._thread = StepThread()
        self._probe = SpeedProbe(engine)
        # In the thread of the steps, which has memory of its own from the C library.
        await self._thread.run(partial(self._sequences.warm_up, machines.prompts.longest))
        return engine.cache.num_blocks - num_probe_blocks

    # --- steps --------------------------------------------------------------------------------------------------------

    def start(self, batch: Batch, max_num_steps: int, start_s: float) -> list[float]:
        """See `Executor`, as for all methods below."""
        self._sequences.start(batch)
        self.num_more_steps = max_num_steps
        boundaries_s: list[float] = []
        self.extend(boundaries_s)
        return boundaries_s

    def extend(self, boundaries_s: list[float]) -> None:
        self.num_more_steps -= 1
        boundaries_s.append(inf)
        sequences, loop = self._sequences, asyncio.get_running_loop()

        def tell_layer(layer: int) -> None:
            loop.call_soon_threadsafe(self._on_layer, layer)

        def step() -> "Stepped":
            return sequences.step(tell_layer)

        self._phases.add(PREFILL if sequences.num_prefills else DECODE)
        sequences.begin_step()
        self._thread.start(step if sequences.num_prefills else sequences.step, self._on_end)

    def _on_end(self, result: "Stepped | Exception", end_s: float) -> None:
        if isinstance(result, Exception):
            self._on_step(result, end_s)
        else:
            self._stepped = result
            self._on_step(None, end_s)

    def outputs(self) -> tuple[OutputWritten, ...]:
        return self._stepped.answers

    def end_step(self) -> None:
        self._sequences.end_step(self._stepped)
        if self._stepped.finished:
            self.num_more_steps = 0

    def finish(self, num_steps: int) -> tuple[int, ...]:
        return self._stepped.finished

    # --- sequences ----------------------------------------------------------------------------------------------------

    def has_ended(self, request_id: int, attempt: int, num_generated: int) -> bool:
        return self._sequences.has_ended(request_id, attempt, num_generated)

    def resume(self, request_id: int, attempt: int, output_ids: bytes) -> None:
        self._sequences.resume(request_id, attempt, output_ids)

    def drop(self, request_id: int, attempt: int) -> None:
        self._sequences.drop(request_id, attempt)

    def output_ids(self, request_id: int, attempt: int) -> bytes:
        return self._sequences.output_ids(request_id, attempt)

    def is_prefilling(self, request_id: int, attempt: int) -> bool:
        return self._sequences.is_prefilling(request_id, attempt)

    def cache_of(self, request_id: int, attempt: int, num_tokens: int) -> "SequenceCache":
        return self._sequences.cache_of(request_id, attempt, num_tokens)

    def expect(self, request_id: int, attempt: int, num_tokens: int, is_real: bool) -> "SequenceCache":
        return self._sequences.expect(request_id, attempt, num_tokens, is_real)

    def complete(self, request_id: int, attempt: int, output_ids: bytes) -> None:
        self._sequences.complete(request_id, attempt, output_ids)

    # --- probe steps --------------------------------------------------------------------------------------------------

    async def probe(self, is_idle: Callable[[], bool]) -> list[tuple[str, float]]:
        """Of the phases that ran here; without the first step, which wakes the processor."""
        took_s = []
        steps = [(phase, counts) for phase, counts in PROBE_STEPS if not counts or phase in self._phases]
        for phase, counts in steps if self._phases else ():
            if not is_idle():
                break
            step_s = await self._thread.run(partial(self._probe.step, phase))
            if counts:
                took_s.append((phase, step_s))
        return took_s
