"""Configurations as Hydra composes them from `conf/`, at a fraction of the time where many are asked for.

Hydra reads and merges every YAML file anew for each configuration, 100 ms. Only choices of groups select files; all other
overrides set values in what was merged. So the files are merged once for each set of choices, and copied.
"""

import pickle
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from emu.hydra_node import check_hydra, check_search_path

CONF_DIR = Path(__file__).parents[1] / "conf"
CONFIG_NAME = "config"


@dataclass(frozen=True, slots=True)
class Composed:
    """A configuration without Hydra's own node, and the option chosen of each group."""

    config: DictConfig
    choices: dict[str, str]


def compose(overrides: list[str]) -> Composed:
    """What `hydra.compose` returns for these overrides. Raises HydraException, OmegaConfBaseException, TargetError."""
    parsed = [_parse(override) for override in overrides]
    _check_search_path(parsed)
    _loader().validate_sweep_overrides_legal(parsed, run_mode=RunMode.RUN, from_shell=False)
    selecting = tuple(override.input_line for override in parsed if _selects_files(override))
    config, choices = pickle.loads(_merged(selecting))  # three times as fast as copy.deepcopy
    ConfigLoaderImpl._apply_overrides_to_config([override for override in parsed if not _selects_files(override)], config)
    return Composed(config, choices)


def run_directory(overrides: list[str]) -> str:
    """Where Hydra would have the run with these overrides, from now on. Raises as `compose`."""
    config = _loader().load_configuration(CONFIG_NAME, overrides, RunMode.RUN)
    check_hydra(OmegaConf.to_container(config.hydra))
    return config.hydra.run.dir


def compose_sweep(overrides: list[str]) -> tuple[DictConfig, list[list[Override]]]:
    """Hydra's node of a multirun's configuration, and the overrides of each job, in order, none of them Hydra's own.

    As Hydra's basic sweeper does it: the product of all comma-separated values, the last key varying fastest, those of
    `hydra.sweeper.params` before the others. Raises HydraException, OmegaConfBaseException.
    """
    _check_search_path([_parse(override) for override in overrides])
    config = _loader().load_configuration(CONFIG_NAME, overrides, RunMode.MULTIRUN)
    check_hydra(OmegaConf.to_container(config.hydra))
    with open_dict(config):
        for key in [key for key in config if key != "hydra"]:
            del config[key]
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    task_overrides = [*params, *config.hydra.overrides.task]
    [jobs] = BasicSweeper.split_arguments([_parse(override) for override in task_overrides], max_batch_size=None)
    return config, [[_parse(override) for override in job] for job in jobs]


def quoted(text: str) -> str:
    """The value of an override that is this text, whatever is in it."""
    backslashes = text.replace("\\", "\\\\") if text.endswith("\\") else text
    return "'" + backslashes.replace("'", "\\'") + "'"


def options(group: str) -> list[str]:
    """The options of a group, Hydra's own included, in alphabetical order."""
    return sorted(_loader().get_group_options(group))


@cache
def _loader() -> ConfigLoaderImpl:
    with hydra.initialize_config_dir(str(CONF_DIR), version_base=None):
        return GlobalHydra.instance().config_loader()


@cache
def _parse(override: str) -> Override:
    [parsed] = OverridesParser.create(config_loader=_loader()).parse_overrides([override])
    return parsed


def _check_search_path(overrides: list[Override]) -> None:
    """Before Hydra looks there. Raises TargetError."""
    for override in overrides:
        if override.key_or_group == "hydra.searchpath":
            places = override.value()
            check_search_path([str(place) for place in (places if isinstance(places, list) else [places])])


def _selects_files(override: Override) -> bool:
    """Whether the override is more than a value: a choice of a group, or Hydra's own (its search path)."""
    key = override.key_or_group
    return key.startswith(("hydra.", "hydra/")) or _is_group(key)


@cache
def _is_group(key: str) -> bool:
    return _loader().repository.group_exists(key)


@cache
def _merged(overrides: tuple[str, ...]) -> bytes:
    config = _loader().load_configuration(CONFIG_NAME, list(overrides), RunMode.RUN)
    check_hydra(OmegaConf.to_container(config.hydra))
    choices = OmegaConf.to_container(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return pickle.dumps((config, choices))
