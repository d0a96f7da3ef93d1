"""Planned deaths of machines that changed nothing: a scenario that was asked for and did not take place."""

from typing import Any

from emu.results.columns import PoolMoves
from emu.results.run_record import RunRecord

CLOCK_S = 0.01  # by how much a death may be recorded before its planned time: the driver's timer and the clocks of hosts


def without_effect(record: RunRecord, moves: PoolMoves) -> list[dict[str, Any]]:
    """`machine`, `at_s` and `why` of each of `record.faults` after the run's end, or of a machine that was dead, by time."""
    died_s: dict[int, float] = {}
    for time_s, machine, pool in zip(moves.time_s.tolist(), moves.machine.tolist(), moves.pool.tolist(), strict=True):
        if pool == "dead":
            died_s.setdefault(machine, time_s)
    found, seen = [], set()
    for machine, at_s in sorted(record.faults, key=lambda fault: fault[1]):
        why = ""
        if machine in died_s:
            if machine in seen or died_s[machine] < at_s - CLOCK_S:
                why = f"it was dead from {died_s[machine]:.4g} s on"
        elif at_s > record.emulated_s:
            why = f"the run ended at {record.emulated_s:.4g} s"
        else:
            why = f"every request had ended when it was noticed; the run ended at {record.emulated_s:.4g} s"
        seen.add(machine)
        if why:
            found.append({"machine": record.machines[machine].name, "at_s": at_s, "why": why})
    return found
