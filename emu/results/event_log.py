"""events.msgpack: every event that a state machine handled and what it answered, in the order handled by each.

The file begins with a header, {"format": "emu events", "version": 1, "emu": "0.1.0"}; then follow the records.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgpack

from emu import __version__
from emu.core.codec import decode, encode
from emu.files import open_new

FORMAT = "emu events"
VERSION = 1  # of the records and of the fields of every message in them; the codes of messages are in `emu.core.codec`


class EventLogError(ValueError):
    """A file that is no event log, or of a version that is not read here. The text is one line for the user."""


class EventRecord(NamedTuple):
    """Party `party` (a machine's index, SCHEDULER or NETWORK) handled `event` at `now_s` and answered `actions`."""

    party: int
    now_s: float
    event: tuple
    actions: tuple[tuple, ...]


class EventLog:
    """Appends records to a file that becomes `path` when it is closed. Used as a context manager, or closed by hand."""

    def __init__(self, path: Path) -> None:
        self._path, self._temporary = path, open_new(path)
        self._file = open(self._temporary, "wb")  # noqa: SIM115 (closed by close)
        self._file.write(msgpack.packb({"format": FORMAT, "version": VERSION, "emu": __version__}))

    def append(self, party: int, now_s: float, event: tuple, actions: Iterable[tuple]) -> None:
        self.append_packed(pack_record(party, now_s, event, actions))

    def append_packed(self, packed: bytes) -> None:
        """Append records that another process packed with `pack_record`, one after the other."""
        self._file.write(packed)

    def close(self) -> None:
        self._file.close()
        self._temporary.replace(self._path)

    def __enter__(self) -> "EventLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def pack_record(party: int, now_s: float, event: tuple, actions: Iterable[tuple]) -> bytes:
    return msgpack.packb((party, now_s, encode(event), encode(tuple(actions))))


def unpack_records(packed: bytes) -> list[EventRecord]:
    """The records in `packed`, which holds whole ones."""
    unpacker = msgpack.Unpacker(use_list=False)
    unpacker.feed(packed)
    return [EventRecord(party, now_s, decode(event), decode(actions)) for party, now_s, event, actions in unpacker]


def read_event_log(path: Path) -> Iterator[EventRecord]:
    """The records of events.msgpack in file order. A record cut off at the end, of a run that was killed, is left out.

    Raises EventLogError.
    """
    with open(path, "rb") as file:
        unpacker = msgpack.Unpacker(file, use_list=False)
        try:
            header = next(unpacker, None)
        except (ValueError, msgpack.UnpackException):
            header = None
        _check_header(path, header)
        for party, now_s, event, actions in unpacker:
            yield EventRecord(party, now_s, decode(event), decode(actions))


def _check_header(path: Path, header: object) -> None:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise EventLogError(f"{path}: no event log of emu 0.1 or later; expected a header with format={FORMAT}")
    if header.get("version") != VERSION:
        writer = f"emu {header.get('emu')}"
        raise EventLogError(f"{path}: event log of version {header.get('version')}, by {writer}; expected version {VERSION}")
