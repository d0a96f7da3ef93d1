"""What the machines did: their pools, how busy they were, the KV cache they worked on."""

import numpy as np

from emu.results.report import card
from emu.results.report.machine_table import machine_table
from emu.results.report.quantity import count
from emu.results.report.run import ROLES, ReportedRun

POOLS = {"prompt": "blue", "token": "orange", "mixed": "purple", "dead": "grey"}


def machines_section(run: ReportedRun) -> str:
    return card.section("Machines", card.charts(_pools(run), _busy(run), _context(run)), machine_table(run))


def _pools(run: ReportedRun) -> str:
    moves, timeline = run.columns.pool_moves, run.timeline
    if not len(moves):
        return card.empty("Machines by pool", "The run recorded no pool.")
    previous, layers = _previous_moves(moves.machine), []
    for pool, colour in POOLS.items():
        entered = moves.pool == pool
        if entered.any():
            left = entered[previous] & (previous >= 0)
            layers.append((timeline.level(moves.time_s, entered.astype(float) - left), pool, colour))
    figure = run.figure(len(run.record.machines), "machines")
    figure.stack(timeline.middles_s, layers)
    run.mark_events(figure)
    spent = (f"{pool} {count(round(pool_s))}" for pool, pool_s in run.summary["pools"].items() if pool_s)
    return card.chart("Machines by pool", f"Machine-seconds: {', '.join(spent)}.", figure)


def _previous_moves(machine: np.ndarray) -> np.ndarray:
    """The row of the same machine's move before, for each row; -1 for its first."""
    order = np.argsort(machine, kind="stable")
    previous = np.full(len(machine), -1)
    same = machine[order][1:] == machine[order][:-1]
    previous[order[1:][same]] = order[:-1][same]
    return previous


def _busy(run: ReportedRun) -> str:
    batches, timeline = run.columns.batches, run.rate_timeline
    figure = run.figure(100.0, "share of machines in a step (%)")
    for role, colour in ROLES.items():
        num_machines = np.count_nonzero(run.machine_roles == role)
        if num_machines:
            of_role = run.machine_roles[batches.machine] == role
            busy = timeline.occupancy(batches.start_s[of_role], run.batch_end_s[of_role]) / num_machines
            figure.steps(timeline.edges_s, 100 * busy, f"{role} machines", colour)
    run.mark_events(figure)
    return card.chart("Busy machines", "By role, whatever the pool; a dead one counts as idle.", figure)


def _context(run: ReportedRun) -> str:
    batches, timeline = run.columns.batches, run.timeline
    # Linear over a batch's steps, so the mean over its time is that of its first and last step.
    mean_tokens = batches.context_tokens + (batches.num_steps - 1) * batches.num_decodes / 2
    num_bytes = timeline.occupancy(batches.start_s, run.batch_end_s, mean_tokens) * run.record.model.kv_bytes_per_token
    figure = run.figure(num_bytes.max() / 1e9, "GB")
    figure.line(timeline.middles_s, num_bytes / 1e9, "KV cache read by one step of every machine", "green")
    run.mark_events(figure)
    return card.chart("KV cache of running decodes", "Summed over the machines.", figure)
