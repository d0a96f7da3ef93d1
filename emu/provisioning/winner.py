"""A configuration that was found, as an experiment that `emu` runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from emu.build import compose, plain
from emu.compose import CONF_DIR
from emu.config_error import ConfigError
from emu.files import write_text

EXPERIMENT = "experiment"


def check_overrides(overrides: Sequence[str]) -> None:
    """Raises ConfigError for an override that an experiment cannot stand for, or that a search sets itself."""
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or key.startswith(("+", "~", "hydra")):
            raise ConfigError(f"{override}: expected GROUP=OPTION or GROUP.SETTING=VALUE")
        if key == "cluster" or key == "workload.rate_rps" or key.startswith("cluster.num_"):
            raise ConfigError(f"{override}: a search finds this itself; expected other settings (--designs, --rate choose it)")


def write_experiment(path: Path, overrides: Sequence[str], comment: str) -> None:
    """Write what `emu` with these overrides runs as `path`, DIRECTORY/experiment/NAME.yaml.

    `emu --config-dir DIRECTORY experiment=NAME` then runs it. Raises OSError.
    """
    keys = [override.split("=", 1) for override in overrides]
    chosen = [(key, option) for key, option in keys if (CONF_DIR / key.split("@")[0]).is_dir()]
    nested = [option for key, options in chosen if key == EXPERIMENT for option in options.strip("[]").split(",") if option]
    choices = [f"override /{key}: {option}" for key, option in chosen if key != EXPERIMENT]
    defaults = [*nested, *(dict([choice.split(": ")]) for choice in choices)]
    values: dict[str, Any] = {}
    configured = plain(compose(list(overrides)))
    for key, _ in keys:
        if key not in dict(chosen):
            *groups, name = key.split(".")
            node, source = values, configured
            for group in groups:
                node, source = node.setdefault(group, {}), source[group]
            node[name] = source[name]
    text = yaml.safe_dump({"defaults": defaults, **values}, sort_keys=False, allow_unicode=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"# {line}\n" for line in comment.splitlines())
    write_text(f"# @package _global_\n{lines}{text}", path)
