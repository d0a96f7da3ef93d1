"""How KV caches are moved, as configured."""

from dataclasses import dataclass

from emu.core import setting


class TransferError(ValueError):
    """A transfer setting that cannot be used. The text is for the user."""


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """`payload_scale` is the fraction of the true KV bytes that is really moved, from 0 to 1.

    `auto` is what this host, measured at start-up, moves without disturbing the run: see `choose_payload_scale`. Nothing moves
    under `virtual`.

    `layerwise_min_tokens`: the KV caches of a prefill step with so many tokens or more leave layer by layer while it runs,
    those of a smaller one when it is over (SPLITWISE.md §5); `inf`: all of them when it is over.

    `layers_per_piece`: layers that leave together, a divisor of the model's (which `Cluster` checks).

    `contention`: transfers of one machine share its NIC. Without, each has it to itself.
    """

    payload_scale: float | str
    layerwise_min_tokens: float
    contention: bool
    layers_per_piece: int = 1

    def __post_init__(self) -> None:
        scale = self.payload_scale
        if scale != "auto" and (isinstance(scale, str | bool) or not 0 <= scale <= 1):
            raise TransferError(f"transfer.payload_scale={scale}: expected auto or a number from 0 to 1")
        setting.positive_or_inf("transfer.layerwise_min_tokens", self.layerwise_min_tokens)
        setting.flag("transfer.contention", self.contention)
        setting.whole("transfer.layers_per_piece", self.layers_per_piece, 1)
