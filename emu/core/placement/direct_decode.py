"""Direct decode: short answers are decoded where they were prefilled, and spare their KV cache the way."""

from typing import ClassVar

from emu.core import setting
from emu.core.placement.policy import PlacementPolicy
from emu.core.pools import MachineLoad, Pools
from emu.core.request import Request


class DirectDecode:
    """`base` places every request; one predicted to answer in at most `max_output_tokens` tokens decodes on its prompt
    machine, which stays in its pool. Needs predictions: `prediction=noisy`.

    Raises SettingError for a base with loads of its own: they come with a scheduler that has to know that very policy.
    """

    decodes_where_prefilled: ClassVar[bool] = True

    def __init__(self, base: PlacementPolicy, max_output_tokens: int) -> None:
        if (load_type := getattr(base, "load_type", None)) is not None:
            raise setting.SettingError(f"placement.base={load_type.machine_option}: expected a placement for machine=paged")
        self.base = base
        self.max_output_tokens = setting.whole("placement.max_output_tokens", max_output_tokens, 1)

    def place(self, request: Request, pools: Pools) -> tuple[MachineLoad, MachineLoad]:
        prefill_on, decode_on = self.base.place(request, pools)
        request.decodes_directly = 0 < request.predicted_output_tokens <= self.max_output_tokens
        return prefill_on, prefill_on if request.decodes_directly else decode_on
