"""How busy the machines were, and with how many tokens at once."""

from typing import Any

import numpy as np

from emu.core.pools import Role
from emu.results.columns import Columns
from emu.results.distribution import PERCENTILES
from emu.results.run_record import RunRecord


def utilisation(record: RunRecord, columns: Columns, alive_s: np.ndarray) -> dict[str, Any]:
    """The summary's `utilisation`, ready for JSON: shares of the time that machines were alive (`alive_s`) and in a step.

    `roles` has the share of all machines of a role together, `machines` that of each by its name. `batch_tokens` has, by role,
    the mean and percentiles over the time in a step of the tokens active in it: prompt tokens and one for each decode
    (Splitwise, Fig. 17). None where a role or machine was never alive, or never in a step.
    """
    batches = columns.batches
    busy_s = np.bincount(batches.machine, columns.steps.batch_end_s - batches.start_s, len(record.machines))
    roles = np.array([machine.role for machine in record.machines])
    of_role = {str(role): roles == role for role in Role if (roles == role).any()}
    names = [machine.name for machine in record.machines]
    return {
        "roles": {role: _share(busy_s[chosen].sum(), alive_s[chosen].sum()) for role, chosen in of_role.items()},
        "machines": dict(zip(names, map(_share, busy_s.tolist(), alive_s.tolist()), strict=True)),
        "batch_tokens": {role: _statistics(*seconds_by_tokens(columns, chosen)) for role, chosen in of_role.items()},
    }


def batch_tokens(columns: Columns) -> np.ndarray:
    """The tokens active in each batch: the prompt tokens of its step, and one for each decode."""
    return columns.batches.prefill_tokens + columns.batches.num_decodes


def seconds_by_tokens(columns: Columns, machines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of active tokens, ascending, with which the chosen `machines` ran, and their seconds in all with each.

    `machines` is bool, one entry a machine. A step may have 2^31 tokens: nothing here is as long as that.
    """
    batches = columns.batches
    chosen = machines[batches.machine]
    seconds = (columns.steps.batch_end_s - batches.start_s)[chosen]
    tokens, place = np.unique(batch_tokens(columns)[chosen], return_inverse=True)
    return tokens, np.bincount(place, seconds)


def _statistics(tokens: np.ndarray, seconds: np.ndarray) -> dict[str, float | None]:
    total_s = seconds.sum()
    if not total_s > 0:
        return dict.fromkeys(("mean", *(f"p{q}" for q in PERCENTILES), "max"))
    until_s = np.cumsum(seconds)
    # The fewest tokens at or below which at least that share of the time lies.
    percentiles = tokens[np.searchsorted(until_s, np.array(PERCENTILES) / 100 * until_s[-1] * (1 - 1e-12))].tolist()
    statistics: dict[str, float | None] = {"mean": float(seconds @ tokens / total_s)}
    statistics |= {f"p{q}": tokens for q, tokens in zip(PERCENTILES, percentiles, strict=True)}
    return statistics | {"max": int(tokens[-1])}


def _share(busy_s: float, alive_s: float) -> float | None:
    return float(busy_s / alive_s) if alive_s > 0 else None
