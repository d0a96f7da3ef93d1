"""Actions that only tell what happened: facts for the recorder. See `messages` for their form."""

from typing import NamedTuple

from emu.core.batch import Batch


class Emit(NamedTuple):
    """Steps that ended, and so the tokens that came out: one at the boundary of each step for each request in the batch.

    A fact of the execution, which the runtime adds to those that the state machines decide. `batch` is given with the first
    steps of a run and None with the later ones. `finished` left after the last boundary.
    """

    machine: int
    start_s: float
    boundaries_s: tuple[float, ...]
    batch: Batch | None
    finished: tuple[int, ...]


class Place(NamedTuple):
    """A request's attempt starts: both its machines are chosen."""

    request_id: int
    attempt: int
    prefill_on: int
    decode_on: int


class RecordTransfer(NamedTuple):
    """A hand-over, at its end: when it was offered, when its blocks were reserved and its pull began."""

    request_id: int
    attempt: int
    source: int
    destination: int
    num_tokens: int
    ready_s: float
    pull_s: float


class Requeue(NamedTuple):
    """The attempt is lost; the request starts again. `evicted` tells a want of blocks from a death."""

    request_id: int
    attempt: int
    evicted: bool
    cause: str


class End(NamedTuple):
    """The request is over: finished where `cause` is empty, failed otherwise. Once for each request."""

    request_id: int
    attempt: int
    cause: str


class MovePool(NamedTuple):
    """The machine is in `pool` from now on: prompt, token, mixed or dead."""

    machine: int
    pool: str


class DropStale(NamedTuple):
    """A message of an older attempt, or from a machine already declared dead, was dropped."""

    request_id: int
    attempt: int
    message: str


FACTS = frozenset({Emit, Place, RecordTransfer, Requeue, End, MovePool, DropStale})
