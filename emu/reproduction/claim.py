"""What every claim of the paper is: named, placed, and measured."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from emu.reproduction.finding import Finding
from emu.reproduction.lab import Lab, PaperCluster


@dataclass(frozen=True, slots=True)
class Claim(ABC):
    """`where` in the paper it stands and what it `says`."""

    name: str
    where: str
    says: str

    def capacities(self) -> Iterator[tuple[PaperCluster, str]]:
        """The clusters, each in a mode, whose goodput `measure` asks for: they can be searched beforehand, side by side."""
        yield from ()

    @abstractmethod
    def measure(self, lab: Lab) -> Finding: ...
