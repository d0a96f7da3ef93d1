"""A torch.distributed process group of this process and one peer, in one direction."""

import asyncio
import collections
import itertools
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager

from torch.distributed import PrefixStore, ProcessGroup, Store

from emu.transfer.torch_backends import TorchBackend
from emu.transfer.transport import TransportError

SOURCE, DESTINATION = 0, 1  # ranks
MEET = "destination"  # a key of the store
Operation = Callable[[ProcessGroup], None]


class PeerGroup:
    """Is made on a thread from now on, by both ends, and works until anything in it fails: then it is broken, for ever.

    `rank` is SOURCE or DESTINATION; `store` connects to the store where the two meet, and may block.
    """

    def __init__(self, number: int, backend: TorchBackend, threads: Executor, rank: int, store: Callable[[], Store]) -> None:
        self.number = number
        self.tags = itertools.count()  # of operations yet to come
        self._backend, self._threads, self._rank = backend, threads, rank
        self._store = lambda: PrefixStore(str(number), store())
        self._loop = asyncio.get_running_loop()
        self._made = self._loop.run_in_executor(threads, self._make)
        self._made.add_done_callback(self._on_made)
        self._broken: asyncio.Future[str] = self._loop.create_future()  # why
        self.closed: asyncio.Future[None] = self._loop.create_future()  # after it has broken
        self._running: set[asyncio.Future[None]] = set()
        self._over: dict[int, asyncio.Future[None]] = collections.defaultdict(
            self._loop.create_future
        )  # by tag, where operations have to be in order
        self._begun: set[int] = set()  # tags from `_num_begun` on
        self._num_begun = 0

    @property
    def is_broken(self) -> bool:
        return self._broken.done()

    def begin(self, tag: int) -> bool:
        """Whether an operation with this tag has not yet begun. From now on it has."""
        if tag < self._num_begun or tag in self._begun:
            return False
        self._begun.add(tag)
        while self._num_begun in self._begun:
            self._begun.remove(self._num_begun)
            self._num_begun += 1
        return True

    @asynccontextmanager
    async def turn(self, tag: int) -> AsyncIterator[None]:
        """The context of the operation with this tag: where the backend needs it, after those with lower tags are over."""
        if self._backend.in_order and tag:
            await self._first(self._over[tag - 1])
            del self._over[tag - 1]
        yield
        if self._backend.in_order:
            self._over[tag].set_result(None)

    async def run(self, operation: Operation) -> None:
        """Run a blocking operation on a thread. Returns once it is over.

        Raises TransportError where the group is broken, or breaks, by this operation or another; then the operation does not
        touch its memory any more.
        """
        await self._first(self._made)
        running = self._loop.run_in_executor(self._threads, operation, self._made.result())
        self._running.add(running)
        try:
            await running
        except asyncio.CancelledError:
            if not self.closed.done():
                raise
        except Exception as error:
            self.break_off(_line(error))
            await asyncio.wait({self.closed})
        else:
            return
        finally:
            self._running.discard(running)
        self._raise_if_broken()

    def break_off(self, why: str) -> None:
        """End all operations, which raise TransportError(why)."""
        if not self._broken.done():
            self._broken.set_result(why)
            if self._made.done():
                self._close()
            elif self._rank == SOURCE:
                self._loop.run_in_executor(self._threads, lambda: self._store().set(MEET, "called off"))

    async def _first(self, awaited: asyncio.Future) -> None:
        """Wait for it, unless the group breaks first."""
        if not awaited.done():
            await asyncio.wait({awaited, self._broken}, return_when=asyncio.FIRST_COMPLETED)
        self._raise_if_broken()

    def _raise_if_broken(self) -> None:
        if self._broken.done():
            raise TransportError(self._broken.result())

    def _make(self) -> ProcessGroup:
        """Blocks until the other end makes it too. The source waits where it can be told that nobody will come."""
        store = self._store()
        if self._rank == DESTINATION:
            store.set(MEET, "here")
        elif store.get(MEET) != b"here":
            raise ConnectionError("called off")
        return self._backend.make_group(store, self._rank)

    def _on_made(self, made: asyncio.Future) -> None:
        if self._broken.done():
            self._close()
        elif (error := made.exception()) is not None:
            self.break_off(_line(error))

    def _close(self) -> None:
        """Have it closed on a thread, if it was made at all."""

        def on_closed(closing: asyncio.Future | None) -> None:
            self.closed.set_result(None)
            for running in self._running:
                running.cancel()  # its thread may wait until its deadline: gloo does not tell one whose message was half there

        if self._made.exception() is not None:
            on_closed(None)
        else:
            closing = self._loop.run_in_executor(self._threads, self._backend.close_group, self._made.result())
            closing.add_done_callback(on_closed)


def _line(error: BaseException) -> str:
    """What torch says, without where in its source it says so, and without advice."""
    text = re.sub(r"^\[[^]]*\] *", "", str(error).strip())
    return "torch.distributed: " + re.split(r"\. This is |\n", text)[0]
