"""Who runs the probes of a search: this process, or several others that end with it."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial

from emu.provisioning.probe import Demand, Probe, probe
from emu.sweeps.run import belong_to, here

Execute = Callable[[Sequence[str], float], Probe]  # overrides, rate in requests/s


@contextmanager
def workers(num_processes: int, demand: Demand) -> Iterator[Execute]:
    """Yields what runs a probe and waits for it: in this process where `num_processes` is 1, else in one of so many.

    Of these, threads may run several at once. None is left when the context is, whatever ends it.
    """
    if num_processes == 1:
        yield partial(probe, demand=demand)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    pool = ProcessPoolExecutor(num_processes, context, belong_to, (here(),))
    try:
        yield lambda overrides, rate_rps: pool.submit(probe, overrides, rate_rps, demand).result()
    except BaseException:
        for process in list(pool._processes.values()):  # `ProcessPoolExecutor.kill_workers` came with Python 3.14
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
