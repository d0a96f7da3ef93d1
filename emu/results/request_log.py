"""What became of the requests: where they were placed, handed over, and how they ended."""

from array import array

from emu.core.messages import End, Place, RecordTransfer


class RequestLog:
    """Takes Place, RecordTransfer and End facts, as flat rows with their times beside them.

    `places` has rows of 4 (the fields of Place); `transfers` of 5 (the fields of RecordTransfer up to its times) beside
    `transfer_times_s` of 3 (ready, pull, received); `ends` of 2 (request, number of its cause in `causes`) beside
    `end_times_s`.
    """

    __slots__ = ("_causes", "end_times_s", "ends", "places", "transfer_times_s", "transfers")

    def __init__(self) -> None:
        self.places = array("i")
        self.transfers = array("i")
        self.transfer_times_s = array("d")
        self.ends = array("i")
        self.end_times_s = array("d")
        self._causes = {"": 0}

    def place(self, now_s: float, fact: Place) -> None:
        self.places.extend(fact)

    def transfer(self, now_s: float, fact: RecordTransfer) -> None:
        self.transfers.extend(fact[:5])
        self.transfer_times_s.fromlist([fact.ready_s, fact.pull_s, now_s])

    def end(self, now_s: float, fact: End) -> None:
        self.ends.fromlist([fact.request_id, self._causes.setdefault(fact.cause, len(self._causes))])
        self.end_times_s.append(now_s)

    @property
    def causes(self) -> tuple[str, ...]:
        """Every cause, '' first, in the order in which they came up."""
        return tuple(self._causes)
