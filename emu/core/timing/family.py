"""From a timing configuration to the timing model of one machine."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol

from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing.model import TimingError, TimingModel


class TimingFamily(Protocol):
    """What every `conf/timing/*.yaml` describes: the timing models of all machines of a cluster."""

    def for_machine(self, model: ModelSpec, hardware: HardwareSpec) -> TimingModel:
        """Return the timing of `model` on `hardware`. Raises TimingError, naming what is allowed, if there is none."""
        ...


Fit = Mapping[str, float | Sequence[float]]  # figures by name, as a subclass of FittedFamily has them
Fits = Mapping[str, Mapping[str, Fit | None]]  # by model and hardware; None: no such timing


class FittedFamily(ABC):
    """Timing models with figures per model and hardware: `fits[model.name][hardware.name]` holds a subclass's own keys.

    `tensor_parallel` is the number of GPUs that one instance of the model was profiled on.
    """

    def __init__(self, tensor_parallel: int, fits: Fits) -> None:
        self.tensor_parallel = tensor_parallel
        self.fits = fits

    @abstractmethod
    def build(self, fit: Fit, model: ModelSpec, hardware: HardwareSpec) -> TimingModel:
        """Return the timing model that has the figures `fit`."""

    def for_machine(self, model: ModelSpec, hardware: HardwareSpec) -> TimingModel:
        fit = self.fits.get(model.name, {}).get(hardware.name)
        if fit is None:
            fitted = "; ".join(f"{name} on {', '.join(fits)}" for name, fits in self.fits.items())
            measured = "" if model.executable is None else "; timing=host measures what this host takes"
            raise TimingError(f"no timing for model {model.name} on hardware {hardware.name}; there is: {fitted}{measured}")
        if hardware.num_gpus != self.tensor_parallel:
            raise TimingError(
                f"the timing of model {model.name} on hardware {hardware.name} was profiled on {self.tensor_parallel} "
                f"GPUs a machine, not on num_gpus={hardware.num_gpus}"
            )
        try:
            return self.build(fit, model, hardware)
        except TypeError as error:  # a figure too many, or too few
            raise TimingError(f"timing.fits.{model.name}.{hardware.name}: {error}") from error
