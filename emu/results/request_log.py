"""What became of the requests: where they were placed, handed over, and how they ended."""

from emu.core.facts import KVHandedOver, RequestEnded, RequestPlaced
from emu.results.rows import RowFormat

PLACE = RowFormat(" ".join(RequestPlaced._fields))
TRANSFER = RowFormat("request_id attempt source destination num_tokens", "ready_s pull_s received_s")
END = RowFormat("request_id cause", "end_s")
_pack_place, _pack_transfer, _pack_end = PLACE.pack, TRANSFER.pack, END.pack


class RequestLog:
    """Packs RequestPlaced, KVHandedOver and RequestEnded facts into rows. The cause of an end is its number in `causes`."""

    __slots__ = ("_causes", "ends", "places", "transfers")

    def __init__(self) -> None:
        self.places, self.transfers, self.ends = bytearray(), bytearray(), bytearray()
        self._causes = {"": 0}

    def place(self, now_s: float, fact: RequestPlaced) -> None:
        self.places += _pack_place(*fact)

    def transfer(self, now_s: float, fact: KVHandedOver) -> None:
        self.transfers += _pack_transfer(*fact, now_s)

    def end(self, now_s: float, fact: RequestEnded) -> None:
        request_id, _, cause = fact
        number = self._causes.setdefault(cause, len(self._causes)) if cause else 0
        self.ends += _pack_end(request_id, number, now_s)

    @property
    def causes(self) -> tuple[str, ...]:
        """Every cause, '' first, in the order in which they came up."""
        return tuple(self._causes)
