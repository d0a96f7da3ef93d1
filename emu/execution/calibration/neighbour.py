"""Other machines on the host of a calibration, which share its caches and its power while it measures."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context

from emu.execution.calibration.job import Job
from emu.execution.model import executable_of
from emu.execution.torch_engine.engine import Chunk, load_engine

BUSY_SHARE = 0.4  # of its time; real machines are to be half busy at most
MAX_PROMPT_TOKENS, NUM_DECODE_STEPS = 192, 16  # of one burst of work


@contextmanager
def neighbours(job: Job) -> Iterator[None]:
    """A context in which `job.num_beside` processes execute the same model, prompts and decodes in turn, with pauses."""
    context = get_context("spawn")
    processes = [context.Process(target=_work, args=(job, os.getpid()), daemon=True) for _ in range(job.num_beside)]
    try:
        for process in processes:
            process.start()
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _work(job: Job, parent: int) -> None:
    """Bursts of work until the parent is gone."""
    num_tokens = min(MAX_PROMPT_TOKENS, executable_of(job.model).architecture.max_positions - 1)
    num_blocks = -(-(num_tokens + 1) // job.block_tokens)
    engine = load_engine(
        executable_of(job.model),
        num_blocks=num_blocks,
        block_tokens=job.block_tokens,
        device=job.device,
        num_threads=job.num_threads,
    )
    blocks = engine.cache.allocate(num_blocks)
    while os.getppid() == parent:
        start_s = time.monotonic()
        engine.step([Chunk([0] * num_tokens, 0, blocks)])
        for _ in range(NUM_DECODE_STEPS):
            engine.step([Chunk([0], num_tokens, blocks)])
        time.sleep((time.monotonic() - start_s) * (1 / BUSY_SHARE - 1))
