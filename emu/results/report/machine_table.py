"""How much each machine did, or the machines of one kind together where they are many."""

from collections.abc import Sequence
from html import escape

import numpy as np

from emu.results.report import card
from emu.results.report.quantity import SECONDS, count, share
from emu.results.report.run import ROLES, ReportedRun

MAX_NUM_SHOWN = 12  # beyond, one row for the machines of one role and hardware; the others are folded away
MAX_NUM_LISTED = 60  # beyond, these rows are all there is
HEADER = ("machine", "role", "hardware", "busy", "steps", "prompt tokens", "output tokens", "KV blocks")


def machine_table(run: ReportedRun) -> str:
    machines, batches = run.record.machines, run.columns.batches

    def totals(amounts: np.ndarray) -> np.ndarray:
        return np.bincount(batches.machine, amounts, len(machines))

    busy = totals(run.batch_end_s - batches.start_s) / run.end_s
    amounts = np.stack(
        [
            totals(batches.num_steps),
            totals(batches.prefill_tokens),
            totals(batches.num_steps * batches.num_decodes + batches.num_prefills),
            [machine.num_kv_blocks for machine in machines],
        ],
    )

    def table(groups: Sequence[list[int]]) -> str:
        rows = [[*_names(run, group), _busy(run, group, busy[group]), *_sums(amounts[:, group])] for group in groups]
        return card.table(HEADER, rows, text_columns=(0, 1, 2, 3))

    note = "Busy: share of the run's time spent in a step."
    each = table([[machine.index] for machine in machines]) if len(machines) <= MAX_NUM_LISTED else ""
    if len(machines) <= MAX_NUM_SHOWN:
        return card.box("Machines", note, each, wide=True)
    kinds: dict[tuple[str, str], list[int]] = {}
    for machine in machines:
        kinds.setdefault((machine.role, machine.hardware.name), []).append(machine.index)
    note += " Of several machines the mean, the least and the most busy; the other figures are sums."
    folded = f"<details><summary>Each of the {len(machines)} machines</summary>{each}</details>" if each else ""
    return card.box("Machines", note, table(list(kinds.values())) + folded, wide=True)


def _names(run: ReportedRun, group: list[int]) -> tuple[str, str, str]:
    first, one = run.record.machines[group[0]], len(group) == 1
    name = first.name if one else f"{len(group)} machines"
    num_real = len(set(group) & set(run.record.real))
    if num_real:
        name += " (real)" if num_real == len(group) else f" ({num_real} real)"
    died_s = [at_s for at_s in map(run.death_s, group) if at_s is not None]
    if died_s:
        name += f" (died at {SECONDS.text(died_s[0])} s)" if one else f" ({len(died_s)} died)"
    return escape(name), first.role, escape(first.hardware.name)


def _busy(run: ReportedRun, group: list[int], busy: np.ndarray) -> str:
    mean, low, high = (float(figure) for figure in (busy.mean(), busy.min(), busy.max()))
    colour, width = ROLES[run.record.machines[group[0]].role], 100 * min(1.0, mean)
    bar = f'<span class="bar"><i class="{colour}" style="width:{width:.0f}%"></i></span>{share(mean)}'
    return bar if len(group) == 1 else f"{bar} ({share(low)} to {share(high)})"


def _sums(amounts: np.ndarray) -> list[str]:
    return [count(float(total)) for total in amounts.sum(axis=1)]
