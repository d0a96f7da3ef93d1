"""Two actors and what is measured between them: transfers, the baselines right after each, and a heartbeat beside them."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import ray
from raw_transfer import Memcpy, RawEnd, RawPair

from emu.runtime.transfer_host import TransferHost
from emu.runtime.transfer_mesh import TransferMesh
from emu.transfer.destination import Pulled
from emu.transfer.payload import KVPayload

HEARTBEAT_S, MIN_BEATS = 0.005, 100
MAX_REPEATS, REPEATED_BYTES = 4, 4 << 20  # a sample is of up to so many transfers, of at most so many bytes in all


class OneByOne:
    """Pieces of which each comes into being when it is asked for: a message has no later piece than it needs.

    A `Production`: `Source` waits until the piece that fills a message is there, then asks what is.
    """

    def __init__(self) -> None:
        self._piece = 0

    async def until(self, piece: int, num_pieces: int) -> None:
        self._piece = piece

    def num_produced(self, now_s: float, num_pieces: int) -> int:
        return self._piece + 1


class Untouched(KVPayload):
    """A payload that is neither filled nor verified: whatever is in the buffers is moved, as by a plain library call."""

    def fill(self, start: int, out: np.ndarray) -> int:
        return 0

    def verify(self, start: int, received: np.ndarray) -> tuple[int | None, int]:
        return None, 0


class BenchHost(TransferHost):
    """One end, with the plain library's calls beside it, and a heartbeat on its event loop."""

    async def hold_one_by_one(
        self, kind: type[KVPayload], keys: list[tuple[int, int]], num_bytes: int, num_pieces: int
    ) -> None:
        for key in keys:
            self.transfer.hold(key, kind(*key, num_bytes, num_pieces), OneByOne())

    async def pull_kind(
        self, kind: type[KVPayload], keys: list[tuple[int, int]], num_bytes: int, num_pieces: int
    ) -> list[Pulled]:
        """Pull these payloads from actor 0, all at once."""
        return await asyncio.gather(*(self.transfer.pull(0, key, kind(*key, num_bytes, num_pieces)) for key in keys))

    async def free_all(self, keys: list[tuple[int, int]]) -> None:
        for key in keys:
            self.transfer.free(key)

    async def raw_open(self, kind: type[RawEnd], *arguments: Any) -> Any:
        self._raw = await asyncio.to_thread(kind, *arguments)
        return await asyncio.to_thread(self._raw.open)

    async def raw(self, method: str, *arguments: Any) -> Any:
        return await asyncio.to_thread(getattr(self._raw, method), *arguments)

    async def start_heartbeat(self) -> None:
        self._late_s: list[float] = []
        self._heartbeat = asyncio.ensure_future(self._beat())

    async def stop_heartbeat(self) -> list[float]:
        """By how many seconds each beat was late."""
        self._heartbeat.cancel()
        return self._late_s

    async def _beat(self) -> None:
        clock = asyncio.get_running_loop().time
        due_s = clock()
        while True:  # every beat has its own time, also where the one before was later than that
            due_s += HEARTBEAT_S
            await asyncio.sleep(max(0.0, due_s - clock()))
            self._late_s.append(clock() - due_s)


class Case(NamedTuple):
    """What one row measures, but for its transport and nodes."""

    size_bytes: int
    pieces: int
    concurrency: int


class Sample(NamedTuple):
    """One measurement: of all its payloads, moved and no more; filled and verified as well; and the two baselines after it.

    `wire_s` and `verify_s` are of the verified ones.
    """

    seconds: float
    latency_s: float
    verified_seconds: float
    verified_latency_s: float
    wire_s: float
    verify_s: float
    num_messages: int
    raw_s: float | None
    memcpy_s: float


def _seconds(pulled: Sequence[Pulled]) -> tuple[float, float]:
    """From the start of the first to the end of the last, and the median of each by itself."""
    from_s, until_s = min(pull.start_s for pull in pulled), max(pull.verified_s for pull in pulled)
    return until_s - from_s, median(pull.verified_s - pull.start_s for pull in pulled)


def middle(samples: Sequence[Sample]) -> Sample:
    """The median of each figure."""
    return Sample(*(None if values[0] is None else median(values) for values in zip(*samples, strict=True)))


class TransferPair:
    """Two connected actors, the first of which is the source, and the baselines."""

    def __init__(self, mesh: TransferMesh, raw: RawPair | None, memcpy: Memcpy) -> None:
        self._mesh, self._raw, self._memcpy = mesh, raw, memcpy
        self._num_pulled = 0

    def sample(self, case: Case) -> Sample:
        """The median of one or several measurements, each with its baselines."""
        num_repeats = min(MAX_REPEATS, max(1, REPEATED_BYTES // case.size_bytes))
        samples = [self._sample(case) for _ in range(num_repeats)]
        return middle(samples)

    def _sample(self, case: Case) -> Sample:
        moved, pulled = self.pull(case, Untouched), self.pull(case)
        return Sample(
            *_seconds(moved),
            *_seconds(pulled),
            median(pull.wire_s for pull in pulled),
            median(pull.verify_s for pull in pulled),
            pulled[0].num_messages,
            self._raw.seconds(case.size_bytes) if self._raw else None,
            self._memcpy.seconds(case.size_bytes),
        )

    def pull(self, case: Case, kind: type[KVPayload] = KVPayload) -> list[Pulled]:
        keys = [(self._num_pulled + index, 1) for index in range(case.concurrency)]
        self._num_pulled += case.concurrency
        self._mesh.call(0, "hold_one_by_one", kind, keys, case.size_bytes, case.pieces)
        try:
            return self._mesh.call(1, "pull_kind", kind, keys, case.size_bytes, case.pieces)
        finally:
            self._mesh.call(0, "free_all", keys)

    def heartbeat(self, num_bytes: int, num_runs: int) -> Iterator[dict[str, Any]]:
        """How late a heartbeat of both event loops is: during `num_runs` transfers or more, and idle for as long."""

        def transfers() -> None:
            start_s, num_left = time.monotonic(), num_runs
            while num_left > 0 or time.monotonic() - start_s < HEARTBEAT_S * MIN_BEATS:
                self.pull(Case(num_bytes, 1, 1))
                num_left -= 1

        start_s = time.monotonic()
        busy = self._heartbeat(transfers)
        took_s = time.monotonic() - start_s
        idle = self._heartbeat(lambda: time.sleep(took_s))
        for during, late in (("idle", idle), ("transfer", busy)):
            for actor, late_s in zip(("source", "destination"), late, strict=True):
                p50, p99, most = (float(1e3 * value) for value in np.percentile(late_s, (50, 99, 100)))
                figures = {"beats": len(late_s), "late_p50_ms": p50, "late_p99_ms": p99, "late_max_ms": most}
                yield {"during": during, "actor": actor, "size_bytes": num_bytes} | figures

    def _heartbeat(self, work: Callable[[], None]) -> list[list[float]]:
        ray.get([self._mesh.start(actor, "start_heartbeat") for actor in (0, 1)])
        work()
        return ray.get([self._mesh.start(actor, "stop_heartbeat") for actor in (0, 1)])

    def troubles(self) -> str:
        """What went wrong with transfers, and was made good, since they began."""
        counts = self._mesh.call(1, "take_counts")._asdict()
        return ", ".join(f"{name}={num}" for name, num in counts.items() if num and name not in ("bytes_moved", "verified"))
