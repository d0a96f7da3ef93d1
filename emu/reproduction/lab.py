"""Where claims are measured: clusters of the paper in the modes of emu, each run once and kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from emu.build import compose, plain
from emu.core.machine_kind import MachineSpec
from emu.core.timing.model import TimingModel
from emu.provisioning.goodput import Goodput, bisect
from emu.provisioning.probe import Probe, plan_probe
from emu.reproduction.outcome import Outcome, observe
from emu.reproduction.store import Store, code_digest

COMPATIBLE, RULES, CALIBRATED = "compatible", "compatible rules, calibrated timing", "calibrated"
# The experiments and settings of each mode. The one in the middle tells what is due to timing from what is due to rules.
MODES = {
    COMPATIBLE: (["splitwise_sim"], []),
    RULES: (["splitwise_sim"], ["timing=profile"]),
    CALIBRATED: ([], []),
}
DESIGNS = {
    "baseline_a100": "Baseline-A100",
    "baseline_h100": "Baseline-H100",
    "splitwise_aa": "Splitwise-AA",
    "splitwise_hh": "Splitwise-HH",
    "splitwise_ha": "Splitwise-HA",
    "splitwise_hhcap": "Splitwise-HHcap",
}
WORKLOADS = {"code": "coding", "conv": "conversation"}
# Where higher rates are not looked at: so many in a row are missed, or an SLO is at twice its limit.
NUM_MISSED, HOPELESS = 3, -0.5


@dataclass(frozen=True, slots=True)
class PaperCluster:
    """A cluster of the paper's tables, `conf/experiment/{cap}_{sized_for}_{design}.yaml`, and the workload that it serves."""

    design: str
    cap: str = "iso_power"
    sized_for: str = "conv"
    serves: str = ""

    @property
    def workload(self) -> str:
        return self.serves or self.sized_for

    def overrides(self, mode: str, model: str) -> list[str]:
        experiments, settings = MODES[mode]
        chosen = ",".join([f"{self.cap}_{self.sized_for}_{self.design}", *experiments])
        return [f"experiment=[{chosen}]", "runtime=virtual", f"workload=splitwise_{self.workload}", f"model={model}", *settings]

    @property
    def label(self) -> str:
        """Such as Splitwise-HH (25P15T)."""
        return f"{DESIGNS[self.design]} ({self.size})"

    @property
    def size(self) -> str:
        return _size(f"{self.cap}_{self.sized_for}_{self.design}")


@cache
def _values(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Of the configuration; not to be changed."""
    return plain(compose(list(overrides)))


@cache
def _machines(cluster: PaperCluster, mode: str, model: str) -> tuple[MachineSpec, ...]:
    return plan_probe(cluster.overrides(mode, model), 1.0).run_config.cluster.machines


@cache
def _size(experiment: str) -> str:
    sizes = compose([f"experiment={experiment}"]).cluster
    return f"{sizes.num_prompt}P{sizes.num_token}T" if "num_prompt" in sizes else f"{sizes.num_machines}P/T"


@dataclass(frozen=True, slots=True)
class LabEffort:
    """How long the runs are, which rates are tried before the limit is bisected, and how closely."""

    duration_s: float = 120.0
    step_rps: float = 10.0
    from_rps: float = 20.0
    until_rps: float = 250.0
    tolerance: float = 0.015

    def rates(self, mode: str) -> Iterator[float]:
        """Half as many where only the limit is wanted."""
        rate_rps = self.from_rps
        while rate_rps <= self.until_rps:
            yield rate_rps
            rate_rps += self.step_rps * (2 if mode == RULES else 1)


QUICK = LabEffort(duration_s=4.0, step_rps=60.0, from_rps=30.0, until_rps=90.0, tolerance=0.25)


@dataclass(frozen=True, slots=True)
class ClusterCapacity:
    """What a cluster carries: by the nine SLOs of the run, and as the published analysis would read it off the grid.

    `grid` holds the outcomes at the rates of the effort, up to where nothing more is to be learned.
    """

    goodput: Goodput
    grid: tuple[Outcome, ...]

    @property
    def goodput_rps(self) -> float | None:
        return self.goodput.goodput_rps

    @property
    def published_rps(self) -> float | None:
        """The highest rate of the grid at which the published analysis finds all SLOs met."""
        return max((outcome.probe.rate_rps for outcome in self.grid if outcome.met_as_published), default=None)

    @property
    def binding(self) -> str:
        """What is not met just above the goodput."""
        beyond = self.goodput.beyond
        return "" if beyond is None else f"at {beyond.rate_rps:.3g}: {', '.join(beyond.reasons)}"


@dataclass(frozen=True)
class Lab:
    """Measures in this process; what is in `directory` already is not measured again."""

    directory: Path
    model: str
    effort: LabEffort = LabEffort()
    code: str = field(default_factory=code_digest)  # as it was when the lab was opened, in whichever process it measures
    _seen: dict[tuple, Outcome] = field(default_factory=dict, repr=False, compare=False)  # composing takes time too

    @cached_property
    def store(self) -> Store:
        return Store(self.directory, self.code)

    def outcome(self, cluster: PaperCluster, mode: str, rate_rps: float, further: Sequence[str] = ()) -> Outcome:
        overrides = [*cluster.overrides(mode, self.model), f"workload.duration_s={self.effort.duration_s:g}", *further]
        return self.observe(overrides, rate_rps)

    def observe(self, overrides: Sequence[str], rate_rps: float) -> Outcome:
        """The outcome of a configuration, by its values: two names for one thing are run once."""
        seen = (*overrides, rate_rps)
        if seen not in self._seen:
            key = ["outcome", _values(tuple(overrides)), rate_rps]
            measured = self.store.get(key, lambda: observe(overrides, rate_rps).as_json())
            self._seen[seen] = Outcome.from_json(measured)
        return self._seen[seen]

    def capacity(self, cluster: PaperCluster, mode: str) -> ClusterCapacity:
        """Along the rates of the effort to the first miss, and between it and the rate before by bisection."""
        grid: list[Outcome] = []
        for rate_rps in self.effort.rates(mode):
            grid.append(self.outcome(cluster, mode, rate_rps))
            if self._is_beyond(grid):
                break
        missed = next((index for index, outcome in enumerate(grid) if not outcome.probe.met), len(grid))
        low_rps = grid[missed - 1].probe.rate_rps if missed else 1.0
        high_rps = grid[min(missed, len(grid) - 1)].probe.rate_rps

        def run(rate_rps: float) -> Probe:
            return self.outcome(cluster, mode, rate_rps).probe

        found = bisect(run, low_rps, high_rps, self.effort.tolerance, guess_rps=low_rps)
        return ClusterCapacity(found, tuple(grid))

    @staticmethod
    def _is_beyond(grid: list[Outcome]) -> bool:
        """Whether nothing is to be learned at higher rates."""
        last = grid[-1].probe
        all_missed = len(grid) >= NUM_MISSED and not any(outcome.probe.met for outcome in grid[-NUM_MISSED:])
        return last.saturated or all_missed or (last.worst_margin or 0.0) < HOPELESS

    def timing(self, cluster: PaperCluster, mode: str, hardware: str) -> TimingModel:
        """What the mode takes a machine of this hardware to need. Raises StopIteration where the cluster has none."""
        return next(machine.timing for machine in _machines(cluster, mode, self.model) if machine.hardware.name == hardware)
