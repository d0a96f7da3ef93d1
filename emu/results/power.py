"""How much energy machines take: by their rated power, or by what they were doing."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from emu.core import setting
from emu.core.specs import HardwareSpec, ModelSpec
from emu.results.run_record import RunRecord


class PowerMethod(Protocol):
    """What every `conf/power/*.yaml` describes."""

    name: str

    def check(self, model: ModelSpec) -> None:
        """Raises SettingError where there are no figures for machines that serve `model`."""
        ...

    def energy_j(self, record: RunRecord, alive_s: np.ndarray) -> np.ndarray:
        """Joules of each machine of the run (float64), which was alive for `alive_s` seconds."""
        ...


class RatedPower:
    """A machine takes its rated power all the time that it is alive, whatever it does.

    Rated is `base_w` x the hardware's `relative_power` (Splitwise, Table V: 1 : 1.75 : 1.23).
    """

    name = "rated"

    def __init__(self, base_w: float) -> None:
        self.base_w = setting.positive("power.base_w", base_w)

    def check(self, model: ModelSpec) -> None:
        """Any model will do."""

    def energy_j(self, record: RunRecord, alive_s: np.ndarray) -> np.ndarray:
        return self.base_w * np.array([machine.hardware.relative_power for machine in record.machines]) * alive_s


class PhasePower:
    """A machine's GPUs take a share of their rated power by what is in their step, and its host a constant power.

    `fits[model]` has the shares: `prefill_share` at `prefill_tokens`, the prompt tokens of the step, and `decode_share` at
    `decode_num_seqs`, its decodes; lines between these points, constant beyond. A step with both takes the larger share, a
    machine without a step `idle_share`. A GPU's rated power is its `gpu_power_w`; that of hardware with a power cap, whose
    `gpu_power_w` is the cap, stands in `uncapped_gpu_power_w` by the hardware's name. A GPU never takes more than its
    `gpu_power_w`. The host takes `host_share` of the GPUs' rated power (uncapped), idle or not.

    Raises SettingError for a share that cannot be, or points that do not ascend.
    """

    name = "phase"

    def __init__(
        self,
        idle_share: float,
        host_share: float,
        uncapped_gpu_power_w: dict[str, float],
        fits: dict[str, dict | None],
    ) -> None:
        self.idle_share = setting.between("power.idle_share", idle_share, 0, 1)
        self.host_share = setting.not_negative("power.host_share", host_share)
        self.uncapped_gpu_power_w = {
            name: setting.positive(f"power.uncapped_gpu_power_w.{name}", power_w)
            for name, power_w in uncapped_gpu_power_w.items()
        }
        self.fits = {model: _checked_fit(f"power.fits.{model}", fit) for model, fit in fits.items()}

    def check(self, model: ModelSpec) -> None:
        if model.name not in self.fits:
            raise setting.SettingError(
                f"power=phase: no power was measured for model {model.name}; there is: {', '.join(self.fits)}; or power=rated"
            )

    def energy_j(self, record: RunRecord, alive_s: np.ndarray) -> np.ndarray:
        fit = self.fits[record.model.name]
        columns = record.recorder.columns()
        batches = columns.batches
        busy_s = columns.steps.batch_end_s - batches.start_s
        prefill = np.interp(batches.prefill_tokens, fit["prefill_tokens"], fit["prefill_share"])
        decode = np.interp(batches.num_decodes, fit["decode_num_seqs"], fit["decode_share"])
        share = np.maximum(np.where(batches.num_prefills > 0, prefill, 0.0), np.where(batches.num_decodes > 0, decode, 0.0))
        num_machines = len(record.machines)
        hardware = [machine.hardware for machine in record.machines]
        rated_w = np.array([spec.num_gpus * self._rated_gpu_w(spec) for spec in hardware])
        most_w = np.array([spec.num_gpus * spec.gpu_power_w for spec in hardware])
        step_w = np.minimum(share * rated_w[batches.machine], most_w[batches.machine])
        busy_j = np.bincount(batches.machine, step_w * busy_s, num_machines)
        idle_s = np.maximum(alive_s - np.bincount(batches.machine, busy_s, num_machines), 0.0)
        idle_w = np.minimum(self.idle_share * rated_w, most_w)
        return busy_j + idle_w * idle_s + self.host_share * rated_w * alive_s

    def _rated_gpu_w(self, hardware: HardwareSpec) -> float:
        return self.uncapped_gpu_power_w.get(hardware.name, hardware.gpu_power_w)


def _checked_fit(place: str, fit: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    checked = {}
    for x_name, y_name in (("prefill_tokens", "prefill_share"), ("decode_num_seqs", "decode_share")):
        for name in (x_name, y_name):
            values = fit.get(name) if isinstance(fit, Mapping) else None
            if not isinstance(values, list) or not values:
                raise setting.SettingError(f"{place}.{name} is required: a list of numbers")
            checked[name] = np.array([setting.positive(f"{place}.{name}", value) for value in values])
        x, y = checked[x_name], checked[y_name]
        if len(x) != len(y) or (np.diff(x) <= 0).any():
            raise setting.SettingError(f"{place}.{x_name}={x.tolist()}: expected {len(y)} ascending numbers, as {y_name} has")
    return checked
