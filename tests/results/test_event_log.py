"""events.msgpack says what it is: a header, then the records."""

import msgpack
import pytest

from emu import __version__
from emu.core.messages import SCHEDULER, MachineDied, RunStarted, Send
from emu.results.event_log import EventLog, EventLogError, EventRecord, read_event_log


@pytest.fixture
def log(tmp_path):
    with EventLog(tmp_path / "events.msgpack") as events:
        events.append(SCHEDULER, 0.0, RunStarted(), [])
        events.append(SCHEDULER, 0.5, MachineDied(1, "killed"), [Send(0, MachineDied(1, "killed"))])
    return tmp_path / "events.msgpack"


def test_records_come_back_after_the_header(log):
    header = msgpack.Unpacker(log.open("rb")).unpack()
    assert header == {"format": "emu events", "version": 1, "emu": __version__}
    assert list(read_event_log(log)) == [
        EventRecord(SCHEDULER, 0.0, RunStarted(), ()),
        EventRecord(SCHEDULER, 0.5, MachineDied(1, "killed"), (Send(0, MachineDied(1, "killed")),)),
    ]


def test_a_record_cut_off_at_the_end_is_left_out(log):
    log.write_bytes(log.read_bytes()[:-3])
    assert [record.now_s for record in read_event_log(log)] == [0.0]


def test_another_version_is_one_line(log):
    header = msgpack.packb({"format": "emu events", "version": 2, "emu": "0.9"})
    log.write_bytes(header + msgpack.packb((1, 2)))
    with pytest.raises(EventLogError, match=r"events.msgpack: event log of version 2, by emu 0.9; expected version 1$"):
        list(read_event_log(log))


@pytest.mark.parametrize("content", [b"", b"\xc1", b"text", msgpack.packb((0, 0.0, ("m", 1), ())), msgpack.packb({"a": 1})])
def test_what_is_no_event_log_is_one_line(log, content):
    log.write_bytes(content)
    with pytest.raises(
        EventLogError, match=r"events.msgpack: no event log of emu .* expected a header with format=emu events$"
    ):
        list(read_event_log(log))
