"""From a timing configuration to the timing model of one machine."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from emu.core import setting
from emu.core.setting import SettingError
from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing.model import TimingError, TimingModel
from emu.core.timing.provenance import Provenance


class TimingFamily(Protocol):
    """What every `conf/timing/*.yaml` describes: the timing models of all machines of a cluster.

    `provenance` says where their figures come from, once `for_machine` has returned one.
    """

    provenance: Provenance

    def for_machine(self, model: ModelSpec, hardware: HardwareSpec) -> TimingModel:
        """Return the timing of `model` on `hardware`. Raises TimingError, naming what is allowed, if there is none."""
        ...


Fit = Mapping[str, float | Sequence[float]]  # figures by name, as a subclass of FittedFamily has them
Figures = Mapping[str, Any]  # a fit as the constructor of a timing model takes it, which checks the figures
Fits = Mapping[str, Mapping[str, Fit | None]]  # by model and hardware; None: no such timing


class FittedFamily(ABC):
    """Timing models with figures per model and hardware: `fits[model.name][hardware.name]` holds a subclass's own keys.

    `tensor_parallel` is the number of GPUs that one instance of the model was profiled on. `FIGURES` are the keys that a fit
    must have, `OPTIONAL` those that it may have. Raises SettingError for a fit with others, or impossible figures.
    """

    FIGURES: tuple[str, ...]
    OPTIONAL: tuple[str, ...] = ()

    def __init__(self, tensor_parallel: int, fits: Fits, provenance: Provenance) -> None:
        self.tensor_parallel = setting.whole("timing.tensor_parallel", tensor_parallel, 1)
        self.fits = fits
        missing = provenance.missing
        flaw = f"its file states no {' and no '.join(missing)}" if missing else ""
        self.provenance = provenance if provenance.flaw else replace(provenance, flaw=flaw)
        for model, of_model in _mapping("timing.fits", fits).items():
            for hardware, fit in _mapping(f"timing.fits.{model}", of_model).items():
                if fit is not None:
                    self._check_names(_place(model, hardware), _mapping(_place(model, hardware), fit))
                    self.check(_place(model, hardware), fit)

    def _check_names(self, place: str, fit: Fit) -> None:
        for name in fit:
            if name not in self.FIGURES + self.OPTIONAL:
                raise SettingError(f"{place}.{name}: no such figure; there are {', '.join(self.FIGURES + self.OPTIONAL)}")
        for name in self.FIGURES:
            if name not in fit:
                raise SettingError(f"{place}.{name} is missing; expected {', '.join(self.FIGURES)}")

    @abstractmethod
    def check(self, place: str, fit: Figures) -> None:
        """Raise SettingError where the figures of `fit`, which stand at `place`, cannot be."""

    @abstractmethod
    def build(self, place: str, fit: Figures, model: ModelSpec, hardware: HardwareSpec) -> TimingModel:
        """Return the timing model that has the figures `fit`, which stand at `place`."""

    def for_machine(self, model: ModelSpec, hardware: HardwareSpec) -> TimingModel:
        fit = self.fits.get(model.name, {}).get(hardware.name)
        if fit is None:
            fitted = "; ".join(f"{name} on {', '.join(fits)}" for name, fits in self.fits.items()) or "none"
            measured = "" if model.executable is None else "; timing=host measures what this host takes"
            raise TimingError(f"no timing for model {model.name} on hardware {hardware.name}; there is: {fitted}{measured}")
        if hardware.num_gpus != self.tensor_parallel:
            raise TimingError(
                f"the timing of model {model.name} on hardware {hardware.name} was profiled on {self.tensor_parallel} "
                f"GPUs a machine, not on num_gpus={hardware.num_gpus}"
            )
        return self.build(_place(model.name, hardware.name), fit, model, hardware)


def _mapping(key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingError(f"{key}={value}: expected figures by model, hardware and name")
    return value


def _place(model: str, hardware: str) -> str:
    return f"timing.fits.{model}.{hardware}"
