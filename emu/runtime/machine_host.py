"""The host of one machine or of several, as a Ray actor."""

from functools import partial

import numpy as np

from emu.core.cluster import Cluster
from emu.core.messages import SCHEDULER, MachineDied
from emu.execution.real_machines import RealMachines
from emu.runtime.host import HostSettings
from emu.runtime.machine_cell import MachineCell
from emu.runtime.transfer_host import TransferHost
from emu.runtime.wire import FrameKind
from emu.transfer.settings import TransferSettings


class MachineHost(TransferHost):
    """Holds the cells of `machines`, whose first is its own address. Each of several can die alone."""

    def __init__(
        self,
        machines: tuple[int, ...],
        cluster: Cluster,
        output_tokens: np.ndarray,
        settings: HostSettings,
        transfer_settings: TransferSettings,
        real: RealMachines | None,
    ) -> None:
        super().__init__(machines[0], settings, transfer_settings)
        self.hosted = frozenset(machines)
        lengths = output_tokens.tolist()
        self.cells = {
            index: MachineCell(index, self, cluster, lengths, real, partial(self._fail_machine, index)) for index in machines
        }

    # --- called by Ray ------------------------------------------------------------------------------------------------

    async def open_executors(self) -> dict[int, int]:
        """Get ready to execute. Returns the number of KV blocks of each machine where that is not as declared.

        Raises EngineError.
        """
        num_blocks = {index: await cell.open_executor() for index, cell in self.cells.items()}
        return {index: number for index, number in num_blocks.items() if number is not None}

    async def move(self, payload_scale: float, max_tokens: int) -> None:
        """From now on this fraction of the bytes of KV caches, of `max_tokens` tokens at most, is moved; 0 moves none."""
        for cell in self.cells.values():
            cell.payloads.scale = payload_scale
        await self.touch(max(cell.payloads.num_bytes(max_tokens) for cell in self.cells.values()))

    async def end_machine(self, index: int, cause: str) -> None:
        """End one machine of several. The scheduler hears of it at once."""
        if not self.cells[index].is_dead:
            self.cells[index].end()
            self.post_due(index, SCHEDULER, self.clock.now_s(), MachineDied(index, cause))

    # --- host ---------------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        for cell in self.cells.values():
            cell.on_start()
        self.spawn(self.repeat(self.settings.heartbeat_s / 4, self._beat))

    def on_message(self, sender: int, receiver: int, due_s: float, seq: int, event: tuple) -> None:
        self.cells[receiver].on_message(sender, due_s, seq, event)

    def before_report(self) -> None:
        for cell in self.cells.values():
            cell.tell_passed()

    def measurements(self) -> tuple[list[float], list[float], tuple]:
        message_late_s: list[float] = []
        wakeup_late_s: list[float] = []
        for cell in self.cells.values():
            messages, wakeups = cell.inbox.take_lateness()
            message_late_s += messages
            wakeup_late_s += wakeups
        num_overruns = sum(cell.take_overruns() for cell in self.cells.values())
        return message_late_s, wakeup_late_s, (*self.transfer.take_counts(), num_overruns)

    def _fail_machine(self, index: int, error: Exception) -> None:
        """This machine cannot go on. Of the only one here, the end of the actor says why."""
        if len(self.cells) == 1:
            self.fail(error)
        else:
            self.spawn(self.end_machine(index, f"{type(error).__name__}: {error}"))

    def _beat(self) -> None:
        if SCHEDULER in self.channels:
            self.channels[SCHEDULER].send(FrameKind.HEARTBEAT)
