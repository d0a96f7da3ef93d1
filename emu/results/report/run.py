"""One run as the sections of its report read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from emu.core.machine_kind import MachineSpec
from emu.core.timing.model import TimingModel
from emu.results.columns import FINISHED, Columns
from emu.results.ledger import Ledger, handover_ledger
from emu.results.metrics import measured_requests
from emu.results.report.figure import Figure, x_scale, y_scale
from emu.results.report.quantity import TimeUnit, run_time_unit
from emu.results.report.scale import Scale
from emu.results.report.timeline import Timeline
from emu.results.run_record import RunRecord
from emu.results.shadow import Shadow, shadows
from emu.results.slowdown import Slowdowns, slowdowns
from emu.results.speed import probe_ratios

MAX_NUM_NAMED = 3  # machines in a legend
ROLES = {"prefill": "blue", "decode": "orange", "mixed": "purple"}


@dataclass(frozen=True)
class ReportedRun:
    """A run's record, its facts as tables, its summary, and what the user asked for, as text."""

    record: RunRecord
    columns: Columns
    summary: Mapping[str, Any]
    warmup_s: float
    settings: Mapping[str, str]
    overrides: Sequence[str]
    command: str = ""
    reference: TimingModel | None = None

    @cached_property
    def end_s(self) -> float:
        """The end of the axes over time; above 0 also where nothing happened."""
        return max(self.record.emulated_s, 1e-3)

    @cached_property
    def arrival_s(self) -> np.ndarray:
        """When each request arrived, NaN where the run was interrupted before."""
        arrival_s = self.columns.requests.arrival_s
        return np.where(arrival_s <= self.end_s, arrival_s, np.nan)

    @cached_property
    def timeline(self) -> Timeline:
        """For what has a level at each moment."""
        return Timeline(self.end_s, 300)

    @cached_property
    def rate_timeline(self) -> Timeline:
        """For what is counted: bins wide enough for more than a few events."""
        return Timeline.of_round_bins(self.end_s, 80)

    @cached_property
    def finished(self) -> np.ndarray:
        return self.columns.requests.status == FINISHED

    @cached_property
    def measured(self) -> np.ndarray:
        return measured_requests(self.columns, self.warmup_s)

    @cached_property
    def slowdowns(self) -> Slowdowns | None:
        """Against the reference machine of the objectives; None where that has no timing, or nothing was measured."""
        return slowdowns(self.columns, self.measured, self.reference) if self.reference and self.measured.any() else None

    @cached_property
    def ledger(self) -> Ledger:
        return handover_ledger(self.columns, self.record.cluster, self.record.real, self.record.kv.payload_scale)

    @cached_property
    def shadows(self) -> list[Shadow]:
        return shadows(self.record, self.columns)

    @cached_property
    def probe_ratios(self) -> np.ndarray:
        return probe_ratios(self.record, self.columns)

    @cached_property
    def batch_end_s(self) -> np.ndarray:
        return self.columns.steps.batch_end_s

    @cached_property
    def machine_roles(self) -> np.ndarray:
        return np.array([machine.role for machine in self.record.machines])

    @property
    def rate_width(self) -> str:
        """The width of a bin of `rate_timeline`, as text."""
        width_s = self.rate_timeline.width_s
        return f"{width_s:g} s" if width_s >= 1 else f"{1e3 * width_s:g} ms"

    def death_s(self, machine: int) -> float | None:
        """When the machine was declared dead, None where it never was."""
        moves = self.columns.pool_moves
        died = np.flatnonzero((moves.machine == machine) & (moves.pool == "dead"))
        return float(moves.time_s[died[0]]) if len(died) else None

    @property
    def time_unit(self) -> TimeUnit:
        return run_time_unit(self.end_s)

    def figure(self, highest: float, y_label: str, log: bool = False) -> Figure:
        """A figure over the run's time whose vertical axis goes from 0, or with `log` from 1, to at least `highest`."""
        return self.figure_on(y_scale(highest, log), y_label)

    def figure_on(self, y: Scale, y_label: str) -> Figure:
        """A figure over the run's time with this vertical axis."""
        unit = self.time_unit
        x = x_scale(0.0, self.end_s * unit.per_s, per_unit=unit.per_s)
        return Figure(x, y, f"time since the run's start ({unit.name})", y_label)

    def mark_events(self, figure: Figure) -> None:
        """Mark the last arrival, where a drain follows it, and each death of a machine."""
        last_arrival_s = float(self.columns.requests.arrival_s[-1])
        if last_arrival_s < 0.98 * self.end_s:
            figure.vertical([last_arrival_s], "last arrival", "muted")
        deaths_s = ((machine.name, self.death_s(machine.index)) for machine in self.machines_that_died)
        died = {name: at_s for name, at_s in deaths_s if at_s is not None}
        if died:
            names = f"{', '.join(died)} died" if len(died) <= MAX_NUM_NAMED else f"{len(died)} machines died"
            figure.vertical(list(died.values()), names, "red")

    @cached_property
    def machines_that_died(self) -> list[MachineSpec]:
        return [machine for machine in self.record.machines if self.death_s(machine.index) is not None]
