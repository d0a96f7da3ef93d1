"""Times the steps of an engine as a real machine runs them: in a thread beside an event loop that starts each one."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from emu.execution.calibration.measurements import Measurement, MeasurementFile
from emu.execution.calibration.step_shape import StepShape
from emu.execution.step_thread import StepThread
from emu.execution.torch_engine.engine import Chunk, Engine

IDLE_S = 0.02  # before a step on a machine that has been idle: longer than threads stay awake and caches stay warm
MEASURE_S = 0.25  # of a shape in a round, more or less
MIN_STEPS, MAX_STEPS = 1, 9  # of a kind (idle before, or not) in a measure


class StepTime(NamedTuple):
    """Seconds of a step from the end of the one before to its own end, and those in the engine."""

    step_s: float
    own_s: float


class Profiler:
    """Measures shapes with `engine`, whose KV cache it fills with random numbers. To be made in an event loop."""

    def __init__(self, engine: Engine, seed: int = 0) -> None:
        self._engine = engine
        self._thread = StepThread("calibration")
        self._random = random.Random(seed)
        for layer in engine.cache.layers:
            layer.normal_()  # what is read must be numbers, and none that a CPU computes slowly with (subnormal ones)

    def close(self) -> None:
        self._thread.close()

    async def estimate_s(self, shapes: Sequence[StepShape], max_step_s: float) -> dict[StepShape, float]:
        """What a step of each takes, from two, which warm it up as well. Shapes that take more than `max_step_s` are left out,
        and so are unmeasured those that must take longer: as many sequences of as many tokens, or more."""
        taken_s: dict[StepShape, float] = {}
        too_long: list[StepShape] = []
        for shape in sorted(shapes, key=lambda shape: shape.num_tokens + shape.num_pairs / 1000 + shape.context_tokens / 1000):
            if any(shape.phase == long.phase and shape.num_tokens >= 2 * long.num_tokens for long in too_long):
                continue
            first, second = [time_.step_s for time_ in await self._steps(shape, 2)]
            if min(first, second) > max_step_s:
                too_long.append(shape)
            else:
                taken_s[shape] = min(first, second)
        return taken_s

    async def measure(
        self, estimates_s: dict[StepShape, float], num_rounds: int, file: MeasurementFile, say: Callable[[str], None]
    ) -> None:
        """Measure what `file` lacks: every shape once a round, each round in another order, so that what else the host does
        meets all of them alike."""
        done = {(measurement.round, measurement.shape) for measurement in file.done}
        for number in range(num_rounds):
            order = sorted(estimates_s)
            random.Random(number).shuffle(order)
            for index, shape in enumerate(order):
                if (number, shape) not in done:
                    say(f"round {number + 1} of {num_rounds}, {index} of {len(order)} shapes measured")
                    file.add(await self._measure(number, shape, estimates_s[shape]))

    async def _measure(self, number: int, shape: StepShape, estimate_s: float) -> Measurement:
        num_steps = round(min(MAX_STEPS, max(MIN_STEPS, MEASURE_S / estimate_s)))
        if shape.contexts:
            # Decodes go on: the step before was like this one.
            times = (await self._steps(shape, num_steps + 1))[1:]
            return Measurement(number, shape, tuple(t.step_s for t in times), tuple(t.own_s for t in times))
        idle, times = [], []
        for _ in range(-(-num_steps // 2)):
            # A machine that is half busy is idle before every second of its prefills.
            await asyncio.sleep(IDLE_S)
            first, second = await self._steps(shape, 2)
            idle.append(first.step_s)
            times.append(second)
        steps_s, own_s = tuple(t.step_s for t in times), tuple(t.own_s for t in times)
        return Measurement(number, shape, steps_s, own_s, tuple(idle))

    async def _steps(self, shape: StepShape, num_steps: int) -> list[StepTime]:
        """Times of so many steps in a row. Decodes grow by a token each, to what the shape says."""
        cache = self._engine.cache
        sequences = []  # token ids of a step, tokens before them, blocks
        vocab_size = self._engine.architecture.vocab_size
        for num_tokens, before in shape.prompts:
            blocks = cache.allocate(-(-(num_tokens + before) // cache.block_tokens))
            sequences.append(([self._random.randrange(vocab_size) for _ in range(num_tokens)], before, 0, blocks))
        for context in shape.contexts:
            start = max(0, context - num_steps)
            blocks = cache.allocate(-(-(start + num_steps) // cache.block_tokens))
            sequences.append(([self._random.randrange(vocab_size)], start, 1, blocks))

        def chunks(index: int) -> list[Chunk]:
            return [Chunk(token_ids, before + index * grows, blocks) for token_ids, before, grows, blocks in sequences]

        try:
            return await self._run(chunks, num_steps)
        finally:
            for *_, blocks in sequences:
                cache.release(blocks)

    async def _run(self, chunks: Callable[[int], list[Chunk]], num_steps: int) -> list[StepTime]:
        ended: asyncio.Future[list[StepTime]] = asyncio.get_running_loop().create_future()
        times: list[StepTime] = []

        def start(start_s: float) -> None:
            batch = chunks(len(times))

            def step() -> float:
                began_s = time.monotonic()
                self._engine.step(batch)
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
