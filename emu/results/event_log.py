"""events.msgpack: every event that a state machine handled and what it answered, in the order handled by each."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgpack

from emu.core.codec import decode, encode
from emu.files import open_new


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
    """The records of events.msgpack in file order. A record cut off at the end, of a run that was killed, is left out."""
    with open(path, "rb") as file:
        for party, now_s, event, actions in msgpack.Unpacker(file, use_list=False):
            yield EventRecord(party, now_s, decode(event), decode(actions))
