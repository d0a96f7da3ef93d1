"""The memory of one machine, in bytes."""


class Memory:
    """What the weights leave: used + free = all, always."""

    __slots__ = ("num_bytes", "num_free")

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = self.num_free = num_bytes

    @property
    def num_used(self) -> int:
        return self.num_bytes - self.num_free

    def reserve(self, num_bytes: int) -> None:
        """Take bytes. Raises RuntimeError where they are not free: the caller has to look first."""
        if num_bytes > self.num_free:
            raise RuntimeError(f"{num_bytes} B taken where {self.num_free} of {self.num_bytes} B are free")
        self.num_free -= num_bytes

    def release(self, num_bytes: int) -> None:
        """Give bytes back. Raises RuntimeError where more are given than were taken."""
        self.num_free += num_bytes
        if self.num_free > self.num_bytes:
            raise RuntimeError(f"{self.num_free} B free of {self.num_bytes} B: some were given back twice")
