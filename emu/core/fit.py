"""Which requests no machine of a cluster can ever serve, whatever else it has to do."""

from collections.abc import Sequence as Seq

import numpy as np

from emu.core.machine_kind import Capacity, MachineKind
from emu.core.pools import Role
from emu.core.specs import HardwareSpec, ModelSpec


def largest(
    machines: Seq[tuple[str, Role, HardwareSpec]], model: ModelSpec, kind: MachineKind, both_phases: bool
) -> tuple[Capacity, Capacity]:
    """The largest request that is handed over, and the largest that one machine serves alone, over all `machines`.

    Machines serve the phases of their role, or both, if `both_phases`: some placements ask them to, and pools may die out.
    """
    capacities = [(role, kind.capacity(hardware, model)) for _, role, hardware in machines]

    def of(*roles: Role) -> list[Capacity]:
        return [capacity for role, capacity in capacities if role in roles or both_phases]

    prefill, decode, alone = of(Role.PREFILL, Role.MIXED), of(Role.DECODE, Role.MIXED), of(Role.MIXED)
    # A machine that accepts a larger prompt has more memory, and so decodes more as well: each maximum is of one machine.
    offered = max(capacity.handed_over_tokens for capacity in prefill) if len(capacities) > 1 else 0
    split = Capacity(min(offered, _most(decode).prompt_tokens), offered, _most(decode).total_tokens)
    return split, _most(alone)


def never_fits(limits: tuple[Capacity, Capacity], prompt_tokens: np.ndarray, output_tokens: np.ndarray) -> np.ndarray:
    """Which of these requests no machine that may get them can hold, even alone (bool). `limits` are those of `largest`.

    A one-token answer ends with its prefill and needs no machine to decode.
    """
    split, alone = limits
    total_tokens = prompt_tokens + output_tokens
    one_token = output_tokens == 1
    fits_split = (prompt_tokens <= split.prompt_tokens) & (total_tokens <= split.total_tokens)
    fits_split |= one_token & (prompt_tokens <= split.handed_over_tokens)
    fits_alone = (prompt_tokens <= alone.prompt_tokens) & (total_tokens <= alone.total_tokens)
    impossible: np.ndarray = ~(fits_split | fits_alone)
    return impossible


def _most(capacities: Seq[Capacity]) -> Capacity:
    return max(capacities, default=Capacity(0, 0, 0))
