"""Facts: what happened, for the recorder. They stand among the actions that tell of it; see `messages` for their form."""

from typing import NamedTuple

from emu.core.batch import Batch
from emu.core.message import distinct


@distinct
class TokensEmitted(NamedTuple):
    """Steps that ended, and so the tokens that came out: one at the boundary of each step for each request in the batch.

    A fact of the execution, which the runtime adds to those that the state machines decide. `batch` is given with the first
    steps of a run and None with the later ones. `finished` left after the last boundary.
    """

    machine: int
    start_s: float
    boundaries_s: tuple[float, ...]
    batch: Batch | None
    finished: tuple[int, ...]


@distinct
class RequestPlaced(NamedTuple):
    """A request's attempt starts: both its machines are chosen."""

    request_id: int
    attempt: int
    prefill_on: int
    decode_on: int


@distinct
class KVHandedOver(NamedTuple):
    """A hand-over, at its end: when it was offered, when its blocks were reserved and its pull began."""

    request_id: int
    attempt: int
    source: int
    destination: int
    num_tokens: int
    ready_s: float
    pull_s: float


@distinct
class PayloadMoved(NamedTuple):
    """The bytes of a hand-over really moved and were verified, in emulated seconds.

    A fact of the execution, which the destination's runtime adds to those that the state machines decide. `num_bytes` are the
    modelled bytes x payload scale, in `num_messages`. The pull began at `start_s`, the flow was through by the model at
    `modelled_s`, the last byte was there at `fetched_s`, and all of them were checked at `verified_s`. Within this some
    message was on the wire for `wire_s`, and some was being checked for `verify_s`.
    """

    request_id: int
    attempt: int
    num_bytes: int
    num_messages: int
    start_s: float
    modelled_s: float
    fetched_s: float
    verified_s: float
    wire_s: float
    verify_s: float


@distinct
class RequestRequeued(NamedTuple):
    """The attempt is lost; the request starts again. `evicted` tells a want of blocks from a death."""

    request_id: int
    attempt: int
    evicted: bool
    cause: str


@distinct
class RequestEnded(NamedTuple):
    """The request is over: finished where `cause` is empty, failed otherwise. Once for each request."""

    request_id: int
    attempt: int
    cause: str


KILLED_BY_FAULTS = "killed by faults"  # why a machine died that the configuration had die
_UNFINISHED = "unfinished "


def unfinished_cause(reason: str) -> str:
    """The cause of requests that fail as their run ends, for this `reason`."""
    return f"{_UNFINISHED}{reason}"


def drain_cause(max_drain_s: float) -> str:
    """The cause of requests that fail as their run gives up, so long after the last arrival."""
    return unfinished_cause(f"{max_drain_s:g} s after the last arrival")


def is_unfinished(cause: str) -> bool:
    """Whether the request was under way when the run ended: neither finished nor refused."""
    return cause.startswith(_UNFINISHED)


@distinct
class OutputWritten(NamedTuple):
    """What a real machine wrote of a request that ended there: the token ids of its whole output, over all attempts.

    A fact of the execution, which the machine's runtime adds to those that the state machines decide. `stopped`: by an
    end-of-sequence token, before the length that was asked for.
    """

    request_id: int
    attempt: int
    token_ids: tuple[int, ...]
    stopped: bool


@distinct
class ProbeStepRun(NamedTuple):
    """An idle real machine ran a probe step of `phase`, prefill or decode, in `step_s`: see `core.timing.probe`.

    A fact of the execution, which the machine's runtime adds to those that the state machines decide.
    """

    machine: int
    phase: str
    step_s: float


@distinct
class PoolChanged(NamedTuple):
    """The machine is in `pool` from now on: prompt, token, mixed or dead."""

    machine: int
    pool: str


@distinct
class StaleDropped(NamedTuple):
    """A message of an older attempt, or from a machine already declared dead, was dropped."""

    request_id: int
    attempt: int
    message: str


FACTS = frozenset(
    {
        TokensEmitted,
        RequestPlaced,
        KVHandedOver,
        PayloadMoved,
        RequestRequeued,
        RequestEnded,
        OutputWritten,
        ProbeStepRun,
        PoolChanged,
        StaleDropped,
    }
)
