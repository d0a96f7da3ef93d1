"""What a run would cost: machine-hours, dollars and energy, in all and for what it yielded."""

from typing import Any

import numpy as np

from emu.results.columns import FINISHED, Columns
from emu.results.power import PowerMethod
from emu.results.run_record import RunRecord

JOULES_PER_KWH = 3.6e6


def cost_and_energy(record: RunRecord, columns: Columns, power: PowerMethod) -> dict[str, dict[str, Any]]:
    """The summary's `cost` (machine_hours, dollars) and `energy` (method, kwh, mean_power_w), ready for JSON.

    All are of the whole run, from `Workload.counted_from_s` to the end of its last event, warm-up and drain included; a machine
    counts until it is declared dead. Each is given as `total`, `per_million_output_tokens`, `per_million_tokens` (prompt and
    output) and `per_request`: tokens and requests are those of finished requests; None where none finished.
    """
    alive_s = alive_seconds(record, columns)
    price_per_hour = np.array([machine.hardware.price_per_hour for machine in record.machines])
    counted_s = record.emulated_s - record.recorder.workload.counted_from_s
    energy_j = float(power.energy_j(record, alive_s).sum())
    finished = columns.requests.status == FINISHED
    num_output = int(columns.requests.num_tokens_out[finished].sum())
    num_tokens = num_output + int(columns.requests.prompt_tokens[finished].sum())
    yields = {
        "per_million_output_tokens": num_output / 1e6,
        "per_million_tokens": num_tokens / 1e6,
        "per_request": int(np.count_nonzero(finished)),
    }

    def spread(total: float) -> dict[str, float | None]:
        return {"total": total} | {name: total / amount if amount else None for name, amount in yields.items()}

    return {
        "cost": {
            "machine_hours": spread(float(alive_s.sum()) / 3600),
            "dollars": spread(float(alive_s @ price_per_hour) / 3600),
        },
        "energy": {
            "method": power.name,
            "kwh": spread(energy_j / JOULES_PER_KWH),
            "mean_power_w": energy_j / counted_s if counted_s > 0 else None,
        },
    }


def alive_seconds(record: RunRecord, columns: Columns) -> np.ndarray:
    """Seconds that each machine was alive (float64): from `Workload.counted_from_s` until it died, or to the run's end."""
    end_s = np.full(len(record.machines), record.emulated_s)
    moves = columns.pool_moves
    died = moves.pool == "dead"
    np.minimum.at(end_s, moves.machine[died], moves.time_s[died])
    return np.maximum(0.0, end_s - record.recorder.workload.counted_from_s)
