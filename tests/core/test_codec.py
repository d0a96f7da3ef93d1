import msgpack
import pytest

from emu.core.codec import decode, encode
from emu.core.facts import OutputWritten
from emu.core.messages import Assigned, PrefillDone, RequestEvicted, Send


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
