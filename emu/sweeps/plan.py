"""What a sweep was asked to do: its runs, each checked before the first one starts."""

import json
import shlex
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict

from emu.build import build, plain
from emu.compose import compose, compose_sweep
from emu.config_error import ConfigError, one_line_errors
from emu.install import install_command, versions
from emu.workload.workload import Workload

SOURCE_DIR = Path(__file__).parents[1]
SUBDIR = "${hydra.job.num}"
LAUNCHERS = "no such option; expected basic (one run after the other), joblib (on all cores) or ray (across a Ray cluster)"
NO_RAY_LAUNCHER = "needs Hydra's Ray launcher, which is not installed; "


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run of a sweep. `settings` are its overrides as values; `config` and `workload` are digests of its whole
    configuration and of its requests, equal where these are."""

    number: int
    overrides: list[str]
    settings: dict[str, Any]
    config: str
    workload: str
    require_valid: bool


@dataclass(frozen=True, slots=True, eq=False)
class SweepPlan:
    """The runs of a sweep, `hydra` the node of the same name, and Hydra's own overrides that every run shares."""

    directory: Path
    hydra: DictConfig
    hydra_overrides: list[str]
    runs: list[PlannedRun]

    @property
    def varying(self) -> list[str]:
        """The settings that are not the same in all runs; all of them where there is but one."""
        keys = list(self.runs[0].settings)
        return [key for key in keys if len({str(run.settings[key]) for run in self.runs}) > 1] or keys

    def as_json(self) -> dict[str, Any]:
        """What decides the results of the runs: equal plans have equal results."""
        fields = ("overrides", "settings", "config", "workload")
        return {
            "versions": versions("numpy"),
            "code": code_digest(),
            "runs": [{field: getattr(run, field) for field in fields} for run in self.runs],
        }


def plan_sweep(overrides: list[str]) -> SweepPlan:
    """The sweep that `emu -m` with these overrides asks for. Every configuration is built once, to be sure that it can be.

    Raises ConfigError.
    """
    with one_line_errors():
        try:
            config, jobs = compose_sweep([*overrides, "hydra.mode=MULTIRUN"])
        except MissingConfigException as error:
            group, _, option = str(error.missing_cfg_file).rpartition("/")
            if group != "hydra/launcher":
                raise
            problem = LAUNCHERS if option != "ray" else NO_RAY_LAUNCHER + install_command("ray-launcher")
            raise ConfigError(f"hydra/launcher={option}: {problem}") from error
        hydra = config.hydra
        _check(hydra)
        hydra_overrides = [override for override in hydra.overrides.hydra if override.startswith("hydra.searchpath=")]
        directory = Path(hydra.sweep.dir).absolute()
        with open_dict(config):
            hydra.sweep.dir = str(directory)
            hydra.output_subdir = None  # its files take longer to write than a short run: a run writes its own
    runs = list(_runs(jobs, hydra_overrides, is_parallel=not is_basic(hydra)))
    if not runs:
        raise ConfigError(f"{shlex.join(overrides)}: no run; expected values, or a glob that matches options of its group")
    return SweepPlan(directory, config, hydra_overrides, runs)


def is_basic(hydra: DictConfig) -> bool:
    """Whether one run follows the other, in this process."""
    return hydra.launcher._target_.endswith(".BasicLauncher")


def _check(hydra: DictConfig) -> None:
    if not hydra.sweeper._target_.endswith(".BasicSweeper"):
        name = hydra.runtime.choices["hydra/sweeper"]
        raise ConfigError(f"hydra/sweeper={name}: expected basic, which runs every combination that was asked for")
    sweep: Any = OmegaConf.to_container(hydra.sweep)
    subdir = sweep["subdir"]
    if subdir != SUBDIR:
        raise ConfigError(f"hydra.sweep.subdir={subdir}: expected {SUBDIR}: the directory of a run has its number for a name")


def _runs(jobs: list[list[Override]], hydra_overrides: list[str], is_parallel: bool) -> Iterator[PlannedRun]:
    earlier: dict[Hashable, tuple[int, list[str]]] = {}
    for number, job in enumerate(jobs):
        overrides = [str(override.input_line) for override in job]
        with one_line_errors():
            config = plain(compose([*hydra_overrides, *overrides]).config)
        first, of_first = earlier.setdefault(_point(config), (number, overrides))
        if first != number:
            told, told_first = (
                " ".join(sorted(set(a) - set(b)) or a) for a, b in ((overrides, of_first), (of_first, overrides))
            )
            raise ConfigError(f"{told}: run {number} is run {first} again, {told_first}; expected each point of a sweep once")
        plan = build(config)
        if plan.overwrite:
            raise ConfigError("overwrite=true: a sweep goes on in its directory; for a new one set hydra.sweep.dir")
        if is_parallel and plan.runtime.name == "ray":
            raise ConfigError(
                "runtime=ray: runs at the same time would take each other's cores and be late; "
                "expected hydra/launcher=basic, which runs one after the other, or runtime=virtual"
            )
        yield PlannedRun(
            number=number,
            overrides=overrides,
            settings={override.get_key_element(): _plain(override) for override in job},
            config=_config_digest(config),
            workload=_workload_digest(plan.run_config.workload),
            require_valid=plan.require_valid,
        )


def _point(node: Any) -> Hashable:
    """A configuration as what it is equal by: 4 is 4.0, and true is not 1."""
    if isinstance(node, dict):
        return frozenset((key, _point(value)) for key, value in node.items())
    return tuple(map(_point, node)) if isinstance(node, list) else (isinstance(node, bool), node)


def _config_digest(config: dict[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(config, sort_keys=True).encode())


def _workload_digest(workload: Workload) -> str:
    digest = xxhash.xxh3_64()
    for column in (workload.arrival_s, workload.prompt_tokens, workload.output_tokens, *(workload.prompt_ids or ())):
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


def _plain(override: Override) -> Any:
    """The value of an override as JSON has it: a number, a truth, null or else its text."""
    value = override.value()
    return value if value is None or isinstance(value, bool | int | float | str) else override.get_value_element_as_str()


@cache
def code_digest() -> str:
    """Of the source code and data of emu."""
    digest = xxhash.xxh3_64()
    for path in sorted(path for path in SOURCE_DIR.rglob("*") if path.suffix in (".py", ".csv")):
        digest.update(path.relative_to(SOURCE_DIR).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
