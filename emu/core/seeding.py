"""One seed a run, one independent stream of random numbers for each use of it."""

import zlib

import numpy as np


def random_stream(seed: int, name: str) -> np.random.Generator:
    """Return the generator of the use called `name`: the same seed and name give the same numbers, whatever else draws."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def request_seed(seed: int, request_id: int) -> int:
    """The seed of one request's own draws, below 2**128, as Philox takes it for a key. No two requests or seeds share one."""
    return seed << 64 | request_id
