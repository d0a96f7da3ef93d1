"""Every event a state machine handles (past tense) and every action it answers with (imperative), but for `facts`.

All are flat tuples with names, so that they compare by value, travel as msgpack arrays and are cheap to make. Machines are
addressed by their index from 0; the other parties have the negative addresses below. Times are seconds since the run's
start. `attempt` counts the starts of a request: a message of an older attempt is stale and is dropped.

`output_ids` are the token ids of all output tokens so far, where a real machine has computed them: int32, little-endian. The
state machines neither make nor read them: `SendOutput` has the runtime add them, `ResumeOutput` has it take them back.
"""

from typing import NamedTuple

from emu.core.batch import Batch
from emu.core.message import Message, distinct

DRIVER, NETWORK, SCHEDULER = -3, -2, -1
# make(Send, (to, message)) is Send(to, message) in half the time: for what is made several times a request.
make = tuple.__new__


# --- events for the scheduler -----------------------------------------------------------------------------------------


@distinct
class RunStarted(NamedTuple):
    """Time 0. Answered with the facts that hold from the start: every machine in its home pool."""


@distinct
class RequestArrived(NamedTuple):
    """`predicted_output_tokens` is somebody's guess of its output's length, 0 where there is none."""

    request_id: int
    arrival_s: float
    prompt_tokens: int
    predicted_output_tokens: int


@distinct
class PrefillDone(NamedTuple):
    """The first token is out (and the KV cache, where decode is elsewhere, is held for the hand-over)."""

    request_id: int
    attempt: int
    output_ids: bytes = b""


@distinct
class KVTransferred(NamedTuple):
    """The KV cache is at the decode machine, verified."""

    request_id: int
    attempt: int


@distinct
class KVTransferFailed(NamedTuple):
    """The decode machine cannot have the KV cache, and has forgotten the attempt."""

    request_id: int
    attempt: int
    cause: str


@distinct
class RequestFinished(NamedTuple):
    request_id: int
    attempt: int


@distinct
class RequestEvicted(NamedTuple):
    """No block was left for it: it has lost its KV cache after `num_generated` output tokens and must be recomputed."""

    request_id: int
    attempt: int
    num_generated: int
    output_ids: bytes = b""


@distinct
class RequestRejected(NamedTuple):
    """The machine can never hold it."""

    request_id: int
    attempt: int
    cause: str


@distinct
class MachineDied(NamedTuple):
    machine: int
    cause: str


@distinct
class QueueChanged(NamedTuple):
    """Whether any task waits at the machine. Only machines of the compatible mode say so: its placement asks for it."""

    machine: int
    is_waiting: bool


@distinct
class RunEnded(NamedTuple):
    """No more time is given to what is still unfinished."""

    cause: str


# --- events for a machine ---------------------------------------------------------------------------------------------


@distinct
class Assigned(NamedTuple):
    """Prefill this request here, then hand it to machine `decode_on` (or keep it, where that is this machine)."""

    request_id: int
    attempt: int
    arrival_s: float
    num_tokens: int
    num_generated: int
    decode_on: int
    output_ids: bytes = b""


@distinct
class KVReady(NamedTuple):
    """Machine `source` holds the KV cache of `num_tokens` tokens of this request for you to pull.

    Layer by layer it comes into being from `produced_from_s` to `produced_until_s`, when its prefill ends and `num_generated`
    tokens are out.
    """

    request_id: int
    attempt: int
    arrival_s: float
    num_tokens: int
    num_generated: int
    source: int
    produced_from_s: float
    produced_until_s: float


@distinct
class KVReceived(NamedTuple):
    """The KV cache you pulled is complete and verified."""

    request_id: int
    attempt: int


@distinct
class KVLost(NamedTuple):
    """The KV cache you pull cannot be had: its transfer was tried again too often. Told by the runtime.

    Before or after the end of its flow as modelled; which need not be over then.
    """

    request_id: int
    attempt: int
    cause: str


@distinct
class KVPulled(NamedTuple):
    """The destination has its verified copy: the held one can go."""

    request_id: int
    attempt: int


@distinct
class Cancelled(NamedTuple):
    """Forget this attempt of the request, wherever it is, and free what it holds; a runtime drops a pull in progress."""

    request_id: int
    attempt: int


@distinct
class StepsPassed(NamedTuple):
    """Steps of the run in flight that ended before the next event; the run goes on.

    Told before events that ask how many blocks are free: not before those that a `CutRun` may answer at most.
    """

    num_steps: int


@distinct
class StepsDone(NamedTuple):
    """The run is over after `num_steps` steps more than were told; `finished` ended with the last of them."""

    num_steps: int
    finished: tuple[int, ...]


# --- events for a runtime ---------------------------------------------------------------------------------------------


@distinct
class FlowEndSet(NamedTuple):
    """The flow of this KV cache ends at `at_s`. Replaces an earlier end of it."""

    request_id: int
    attempt: int
    at_s: float


# --- events for the network -------------------------------------------------------------------------------------------


@distinct
class FlowRequested(NamedTuple):
    """Move `num_bytes` from `source` to `destination`: stands for the pull from the source as well.

    They come into being in `num_pieces` equal pieces, one at the end of each equal part of `produced_from_s` to
    `produced_until_s`; both in the past: all of them are there.
    """

    request_id: int
    attempt: int
    source: int
    destination: int
    num_bytes: int
    produced_from_s: float
    produced_until_s: float
    num_pieces: int


@distinct
class SharesChange(NamedTuple):
    """Flows get other shares by now, as was to be expected: one has ended, or all bytes of one have come into being."""


# --- actions ----------------------------------------------------------------------------------------------------------


@distinct
class Send(NamedTuple):
    """Deliver `message` to party `to`, one control latency from now."""

    to: int
    message: Message


@distinct
class SendOutput(NamedTuple):
    """As `Send`, with the output tokens of the message's request so far as its `output_ids`, where they are known."""

    to: int
    message: PrefillDone | RequestEvicted


@distinct
class ResumeOutput(NamedTuple):
    """This attempt, which will be prefilled here, goes on after these output tokens of earlier ones."""

    request_id: int
    attempt: int
    output_ids: bytes


@distinct
class OfferKV(NamedTuple):
    """Hold the KV cache that `offer` describes until it is freed, and send the offer to its destination `to`."""

    to: int
    offer: KVReady


@distinct
class PullKV(NamedTuple):
    """Pull the KV cache that `flow` moves, and have the network time the flow."""

    flow: FlowRequested


@distinct
class FreeKV(NamedTuple):
    """Drop the held KV cache, once nobody can be pulling it any more."""

    request_id: int
    attempt: int


@distinct
class DropAttempt(NamedTuple):
    """Stop pulling for this attempt of a request, and drop what was computed for the attempts up to it."""

    request_id: int
    attempt: int


@distinct
class RunSteps(NamedTuple):
    """Run `batch` for at most `max_num_steps` steps, to the first end of a request; one step where it has prefills."""

    batch: Batch
    max_num_steps: int


@distinct
class CutRun(NamedTuple):
    """End the run in flight at its first boundary after this event."""


@distinct
class SetTimer(NamedTuple):
    """Hand `message` to yourself at `at_s`."""

    at_s: float
    message: Message


@distinct
class SetFlowEnd(NamedTuple):
    """Hand KVReceived to `destination` at `at_s`. Replaces an earlier end of the flow."""

    request_id: int
    attempt: int
    destination: int
    at_s: float


ACTIONS = frozenset(
    {Send, SendOutput, ResumeOutput, OfferKV, PullKV, FreeKV, DropAttempt, RunSteps, CutRun, SetTimer, SetFlowEnd}
)
