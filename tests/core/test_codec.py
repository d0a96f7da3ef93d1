import msgpack
import pytest

from emu.core import batch, facts, messages
from emu.core.codec import TYPES, decode, encode
from emu.core.facts import OutputWritten
from emu.core.messages import Assigned, Cancelled, KVReceived, PrefillDone, RequestEvicted, Send


@pytest.mark.parametrize(
    "message",
    [
        Send(2, Assigned(7, 2, 0.5, 125, 25, 3, b"\x00\xff\x80\n")),
        PrefillDone(7, 1, b"\x01\x00\x00\x00"),
        RequestEvicted(7, 1, 25, b""),
        OutputWritten(7, 2, (0, 151_935, 3), True),
        OutputWritten(7, 2, (), False),
    ],
)
def test_token_ids_come_through_as_they_were(message):
    carried = msgpack.unpackb(msgpack.packb(encode(message)), use_list=False)
    decoded = decode(carried)
    assert decoded == message
    assert type(decoded) is type(message)


def test_every_message_has_a_code():
    members = (vars(batch) | vars(facts) | vars(messages)).values()
    assert set(TYPES.values()) == {member for member in members if isinstance(member, type) and hasattr(member, "_fields")}
    assert len(set(TYPES.values())) == len(TYPES)


def test_an_unknown_code_is_refused():
    with pytest.raises(ValueError, match=r"^9 is no message code; known are 1 to 89$"):
        decode(("m", 9, 1))


def test_messages_of_different_types_are_never_equal():
    received = KVReceived(1, 1)
    assert received == KVReceived(1, 1) and hash(received) == hash(KVReceived(1, 1))
    assert received != Cancelled(1, 1) and received != (1, 1) and received != KVReceived(1, 2)
    assert {received: "here"}.get(Cancelled(1, 1)) is None
    assert Send(0, received) != Send(0, Cancelled(1, 1))
    assert len({kind(*[0] * len(kind._fields)) for kind in TYPES.values()}) == len(TYPES)
