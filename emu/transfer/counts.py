"""What transfers count."""

from typing import NamedTuple


class TransferCounts(NamedTuple):
    """What has been moved to one machine, and what went wrong on the way; all whole numbers.

    `verified` are whole payloads. Of messages: `corrupt` had a byte that was not what belongs there, `truncated` were shorter
    or longer than was said, `duplicated` came again, `reordered` before one that was sent earlier, `late` after their
    deadline, or never, or when nobody wanted them any more. `missing` is how often a source did not hold what was wanted,
    `broken` how often a transport failed. `resent` are the parts of payloads that were asked for again, whatever the cause,
    and `failed` payloads that were given up.
    """

    bytes_moved: int = 0
    verified: int = 0
    corrupt: int = 0
    truncated: int = 0
    duplicated: int = 0
    reordered: int = 0
    late: int = 0
    missing: int = 0
    broken: int = 0
    resent: int = 0
    failed: int = 0
