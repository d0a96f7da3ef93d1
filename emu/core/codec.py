"""Messages to and from plain tuples, which any serializer can carry: (mark, type code, *fields), the same nested."""

from typing import Any

from emu.core import facts, messages
from emu.core.batch import Batch, DecodeJoin, Prefill
from emu.core.message import Message

_MARK = "m"  # begins an encoded message: no field of a message is a tuple that begins with a string
# A code is never given to another type: event logs of earlier versions keep it. A type whose fields change gets a new one.
TYPES: dict[int, type[Any]] = {
    1: Batch,
    2: Prefill,
    3: DecodeJoin,
    # events for the scheduler
    10: messages.RunStarted,
    11: messages.RequestArrived,
    12: messages.PrefillDone,
    13: messages.KVTransferred,
    14: messages.KVTransferFailed,
    15: messages.RequestFinished,
    16: messages.RequestEvicted,
    17: messages.RequestRejected,
    18: messages.MachineDied,
    19: messages.QueueChanged,
    20: messages.RunEnded,
    # events for a machine
    30: messages.Assigned,
    31: messages.KVReady,
    32: messages.KVReceived,
    33: messages.KVLost,
    34: messages.KVPulled,
    35: messages.Cancelled,
    36: messages.StepsPassed,
    37: messages.StepsDone,
    38: messages.FlowEndSet,
    # events for the network
    50: messages.FlowRequested,
    51: messages.SharesChange,
    # actions
    60: messages.Send,
    61: messages.SendOutput,
    62: messages.ResumeOutput,
    63: messages.OfferKV,
    64: messages.PullKV,
    65: messages.FreeKV,
    66: messages.DropAttempt,
    67: messages.RunSteps,
    68: messages.CutRun,
    69: messages.SetTimer,
    70: messages.SetFlowEnd,
    # facts
    80: facts.TokensEmitted,
    81: facts.RequestPlaced,
    82: facts.KVHandedOver,
    83: facts.PayloadMoved,
    84: facts.RequestRequeued,
    85: facts.RequestEnded,
    86: facts.OutputWritten,
    87: facts.ProbeStepRun,
    88: facts.PoolChanged,
    89: facts.StaleDropped,
}
_CODES = {message_type: code for code, message_type in TYPES.items()}


def encode(message: Message) -> Message:
    """A message as a plain tuple of numbers, strings and such tuples. Plain tuples inside it stay what they are."""
    code = _CODES.get(type(message))
    fields = [encode(field) if isinstance(field, tuple) else field for field in message]
    return tuple(fields) if code is None else (_MARK, code, *fields)


def decode(plain: Message) -> Message:
    """The message that `encode` was given. Raises ValueError for a code that is none."""
    if plain[:1] == (_MARK,):
        message_type = TYPES.get(plain[1])
        if message_type is None:
            raise ValueError(f"{plain[1]} is no message code; known are {min(TYPES)} to {max(TYPES)}")
        message: Message = message_type(*[decode(field) if isinstance(field, tuple) else field for field in plain[2:]])
        return message
    return tuple([decode(field) if isinstance(field, tuple) else field for field in plain])
