"""Times the steps of an engine as a real machine runs them: in a thread beside an event loop that starts each one."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from statistics import fmean
from typing import NamedTuple

from emu.core.timing.probe import DECODE, PREFILL
from emu.execution.calibration.job import Effort
from emu.execution.calibration.measurements import Measurement, MeasurementFile
from emu.execution.calibration.step_shape import StepShape
from emu.execution.speed_probe import STEPS as PROBE_STEPS
from emu.execution.speed_probe import SpeedProbe
from emu.execution.step_thread import StepThread
from emu.execution.torch_engine.engine import Chunk, Engine

MIN_STEPS, MAX_STEPS = 3, 9  # of a measure


class StepTime(NamedTuple):
    """Seconds of a step from the end of the one before to its own end, and those of them in the engine."""

    step_s: float
    own_s: float


class Profiler:
    """Measures shapes with `engine`, whose KV cache it fills with random numbers. To be made in an event loop."""

    def __init__(self, engine: Engine, effort: Effort) -> None:
        self._engine = engine
        self._effort = effort
        self._thread = StepThread("calibration")
        self._random = random.Random(0)
        for layer in engine.cache.layers:
            layer.normal_()  # zeros, or what a CPU is slow with (subnormal numbers), are not what is read in earnest

    def close(self) -> None:
        self._thread.close()

    async def estimate_s(self, shapes: Sequence[StepShape], say: Callable[[str], None]) -> dict[StepShape, float]:
        """What a step of each takes, the shorter of two, which warm it up as well. Those beyond `effort.max_step_s` are left
        out, and so is, unmeasured, what has twice as many tokens or context as one of them."""
        taken_s: dict[StepShape, float] = {}
        too_long: list[StepShape] = []
        for index, shape in enumerate(sorted(shapes, key=lambda shape: (shape.num_tokens, shape.context_tokens))):
            say(f"warming up: {index} of {len(shapes)} shapes")
            if any(_is_twice(shape, other) for other in too_long):
                continue
            step_s = min(time.step_s for time in await self.steps(shape, 2))
            if step_s > self._effort.max_step_s:
                too_long.append(shape)
            else:
                taken_s[shape] = step_s
        return taken_s

    async def measure(
        self, estimates_s: dict[StepShape, float], probe: SpeedProbe, file: MeasurementFile, say: Callable[[str], None]
    ) -> None:
        """Measure what `file` lacks: each shape once a round, each round in an order of its own, so that whatever else the host
        does meets all shapes alike. Before each, its speed is probed."""
        num_rounds = self._effort.num_rounds
        done = {(measurement.round, measurement.shape) for measurement in file.done}
        left = [(number, shape) for number in range(num_rounds) for shape in _shuffled(estimates_s, number)]
        left = [each for each in left if each not in done]
        prefill_s, decode_s = await self._probe_s(probe)
        probes_s = sum(prefill_s if phase == PREFILL else decode_s for phase, _ in PROBE_STEPS)
        seconds = {shape: self._about_s(shape, estimate_s) + probes_s for shape, estimate_s in estimates_s.items()}
        left_s = sum(seconds[shape] for _, shape in left)
        for number, shape in left:
            say(f"round {number + 1} of {num_rounds}, about {left_s:.0f} s to go")
            probe_s = await self._probe_s(probe)
            file.add(await self._measure(number, shape, estimates_s[shape], probe_s))
            left_s -= seconds[shape]

    def _about_s(self, shape: StepShape, estimate_s: float) -> float:
        """Seconds of a measure."""
        steps_s = MIN_STEPS * estimate_s
        return max(self._effort.measure_s, steps_s) if shape.contexts else 2 * self._effort.idle_s + steps_s

    async def _probe_s(self, probe: SpeedProbe) -> tuple[float, float]:
        """What a probe step takes now: of a prefill, and of a decode."""
        times_s: dict[str, list[float]] = {PREFILL: [], DECODE: []}
        for phase, counts in PROBE_STEPS:
            step_s = await self._thread.run(partial(probe.step, phase))
            if counts:
                times_s[phase].append(step_s)
        return fmean(times_s[PREFILL]), fmean(times_s[DECODE])

    async def _measure(self, number: int, shape: StepShape, estimate_s: float, probe_s: tuple[float, float]) -> Measurement:
        if shape.contexts:
            # Decodes go on: the step before was of the same batch.
            num_steps = max(MIN_STEPS, min(MAX_STEPS, round(self._effort.measure_s / estimate_s)))
            times = (await self.steps(shape, num_steps + 1))[1:]
            return _measurement(number, shape, times, [], probe_s)
        after_idle, times = [], []
        for num_in_row in (2, 1):
            # A machine that is no more than half busy is idle before most of its prefills: here before two of three.
            await asyncio.sleep(self._effort.idle_s)
            first, *second = await self.steps(shape, num_in_row)
            after_idle.append(first)
            times += second
        return _measurement(number, shape, times, after_idle, probe_s)

    async def steps(self, shape: StepShape, num_steps: int) -> list[StepTime]:
        """The times of so many steps in a row. Decodes grow by a token each, up to what the shape says."""
        cache, vocab_size = self._engine.cache, self._engine.architecture.vocab_size
        sequences = []  # token ids of a step; tokens before them in the first step, and how many more in each later one; blocks
        for num_tokens, before in shape.prompts:
            token_ids = [self._random.randrange(vocab_size) for _ in range(num_tokens)]
            sequences.append((token_ids, before, 0, cache.allocate(-(-(num_tokens + before) // cache.block_tokens))))
        for context in shape.contexts:
            first = max(0, context - num_steps)
            blocks = cache.allocate(-(-max(context, num_steps) // cache.block_tokens))
            sequences.append(([self._random.randrange(vocab_size)], first, 1, blocks))

        def chunks(index: int) -> list[Chunk]:
            return [Chunk(token_ids, before + index * growth, blocks) for token_ids, before, growth, blocks in sequences]

        try:
            return await self._run(chunks, num_steps, bool(shape.prompts))
        finally:
            for *_, blocks in sequences:
                cache.release(blocks)

    async def _run(self, chunks: Callable[[int], list[Chunk]], num_steps: int, tells_layers: bool) -> list[StepTime]:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[list[StepTime]] = loop.create_future()
        times: list[StepTime] = []

        def tell(layer: int) -> None:
            loop.call_soon_threadsafe(int)  # as for layers that leave early

        on_layer = tell if tells_layers else None

        def start(start_s: float) -> None:
            batch = chunks(len(times))

            def step() -> float:
                began_s = time.monotonic()
                self._engine.step(batch, on_layer)
                return time.monotonic() - began_s

            def on_end(own_s: float | Exception, end_s: float) -> None:
                if isinstance(own_s, Exception):
                    ended.set_exception(own_s)
                    return
                times.append(StepTime(end_s - start_s, own_s))
                if len(times) < num_steps:
                    start(end_s)
                else:
                    ended.set_result(times)

            self._thread.start(step, on_end)

        start(time.monotonic())
        return await ended


def _shuffled(shapes: Iterable[StepShape], seed: int) -> list[StepShape]:
    order = sorted(shapes)
    random.Random(seed).shuffle(order)
    return order


def _is_twice(shape: StepShape, other: StepShape) -> bool:
    if shape.phase != other.phase:
        return False
    return shape.num_tokens >= 2 * other.num_tokens or (
        shape.num_tokens >= other.num_tokens and shape.context_tokens >= 2 * max(1, other.context_tokens)
    )


def _measurement(
    number: int, shape: StepShape, times: Sequence[StepTime], after_idle: Sequence[StepTime], probe_s: tuple[float, float]
) -> Measurement:
    step_s, own_s = (tuple(column) for column in zip(*times, strict=True))
    return Measurement(number, shape, step_s, own_s, tuple(time.step_s for time in after_idle), probe_s)
