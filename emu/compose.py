"""Configurations as Hydra composes them from `conf/`, at a fraction of the time where many are asked for.

Hydra reads and merges every YAML file anew for each configuration, 100 ms. Only choices of groups select files; all other
overrides set values in what was merged. So the files are merged once for each set of choices, and copied.
"""

import pickle
import re
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from emu.hydra_node import check_hydra, check_search_path
from emu.hydra_private import BasicSweeper, ConfigLoaderImpl

CONF_DIR = Path(__file__).parent / "conf"
CONFIG_NAME = "config"
MAX_NAME = 200  # characters of an option's name: longer ones are no file's
NO_NAME = re.compile(r"\$\{|^/|^\.\.?(/|$)|/\.\.?(/|$)")  # a reference, or a path out of the folder of the group
# Of an override's value: text in quotes, and text without, whose `\\,` and the like stand for the character itself.
IN_QUOTES = r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\""""
ESCAPED = r"\\([\\()\[\]{}:=, \t])"
PLAIN = r"""(?:\$\{{[^{{}}]*\}}|{escaped}|[^\n\r,()\[\]{{}}='"{colon}])+"""
# What Hydra's grammar has no word for (OverrideLexer.g4): all of it is text. Control characters stay refused.
NEEDS_QUOTES = re.compile(r"""[^\x00-\x1f\x7f\w/\-\\+.$%*@?|:\s,()\[\]{}='"]|[^\x00-\x7f]""", re.ASCII)


@dataclass(frozen=True, slots=True)
class Composed:
    """A configuration without Hydra's own node, and the option chosen of each group."""

    config: DictConfig
    choices: dict[str, str]


def compose(overrides: list[str]) -> Composed:
    """What `hydra.compose` returns for these overrides. Raises HydraException, OmegaConfBaseException, ValueError."""
    parsed = _checked(overrides)
    selecting = tuple(override.input_line for override in parsed if _selects_files(override))
    try:
        config, choices = pickle.loads(_merged(selecting))  # three times as fast as copy.deepcopy
    except MissingConfigException as error:
        raise _as_typed(error, parsed) from error
    ConfigLoaderImpl._apply_overrides_to_config([override for override in parsed if not _selects_files(override)], config)
    return Composed(config, choices)


def compose_run(overrides: list[str]) -> tuple[DictConfig, DictConfig]:
    """The same configuration, and the whole with Hydra's own node: where a run goes, as of when that is asked.

    Raises as `compose`.
    """
    parsed = _checked(overrides)
    try:
        whole = _loader().load_configuration(CONFIG_NAME, [str(override.input_line) for override in parsed], RunMode.RUN)
    except MissingConfigException as error:
        raise _as_typed(error, parsed) from error
    check_hydra(_plain(whole.hydra))
    return OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"]), whole


def compose_sweep(overrides: list[str]) -> tuple[DictConfig, list[list[Override]]]:
    """Hydra's node of a multirun's configuration, and the overrides of each job, in order, none of them Hydra's own.

    As Hydra's basic sweeper does it: the product of all comma-separated values, the last key varying fastest, those of
    `hydra.sweeper.params` before the others. Raises HydraException, OmegaConfBaseException.
    """
    refuse_environment()
    overrides = [quoted(override) for override in overrides]
    _check_search_path([_parse(override) for override in overrides])
    config = _loader().load_configuration(CONFIG_NAME, overrides, RunMode.MULTIRUN)
    check_hydra(_plain(config.hydra))
    with open_dict(config):
        for key in [key for key in config if key != "hydra"]:
            del config[key]
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    task_overrides = [*params, *config.hydra.overrides.task]
    [jobs] = BasicSweeper.split_arguments([_parse(override) for override in task_overrides], max_batch_size=None)
    return config, [[_parse(override) for override in job] for job in jobs]


def _checked(overrides: list[str]) -> list[Override]:
    """The overrides, parsed and found to be such as may be composed."""
    refuse_environment()
    parsed = [_parse(quoted(override)) for override in overrides]
    _check_search_path(parsed)
    _loader().validate_sweep_overrides_legal(parsed, run_mode=RunMode.RUN, from_shell=False)
    for override in parsed:
        if _is_group(override.key_or_group) and not override.is_delete():
            _check_choice(override)
    _check_experiments(parsed)
    return parsed


def as_value(text: str) -> str:
    """The value of an override that is this text, whatever is in it."""
    backslashes = text.replace("\\", "\\\\") if text.endswith("\\") else text
    return "'" + backslashes.replace("'", "\\'") + "'"


def options(group: str) -> list[str]:
    """The options of a group, Hydra's own included, in alphabetical order."""
    return sorted(_loader().get_group_options(group))


def quoted(override: str) -> str:
    """The override with quotes around text that Hydra's grammar takes with quotes only, such as `~/Überlast.csv`.

    A `~/` at the start of one of Hydra's own paths is expanded, which other paths are where they are opened.
    """
    key, equals, value = override.partition("=")
    if not equals or not NEEDS_QUOTES.search(value):
        return override
    is_mapping = "{" in re.sub(r"\$\{[^{}]*\}", "", value)
    plain = PLAIN.format(escaped=ESCAPED, colon=":" if is_mapping else "")

    def quote(found: re.Match) -> str:
        text = found[0]
        if text[0] in "'\"" or not NEEDS_QUOTES.search(text):
            return text
        content = re.sub(ESCAPED, r"\1", text.strip())
        if key.startswith("hydra.") and content.startswith("~/"):
            content = str(Path(content).expanduser())
        closing = "\\" * (len(content) - len(content.rstrip("\\")))
        return f"'{content}{closing}'"

    return f"{key}={re.sub(f'{IN_QUOTES}|{plain}', quote, value)}"


def refuse_environment() -> None:
    """Have `${oc.env:...}` refused from now on: what stands in an environment variable could end in an output."""
    OmegaConf.register_new_resolver("oc.env", _refuse, replace=True)


def _refuse(*arguments: object) -> NoReturn:
    raise ValueError("${oc.env:...} is not allowed: results would show the environment; expected the value itself")


def _as_typed(error: MissingConfigException, overrides: list[Override]) -> MissingConfigException:
    """The error with the group's name as on the command line: hardware@cluster.prompt_hardware rather than hardware."""
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    for override in overrides:
        if override.package and (override.key_or_group, override.value()) == (group, option):
            return MissingConfigException(str(error), f"{override.get_key_element().lstrip('+')}/{option}", error.options)
    return error


def _check_choice(override: Override) -> None:
    """Raises ValueError where the value is no option's name, nor a list of them where there may be several."""
    group, value = override.key_or_group, override.value()
    has_several = group == "experiment"
    names = value if isinstance(value, list) and has_several else [value]
    if not all(isinstance(name, str) and 0 < len(name) <= MAX_NAME and not NO_NAME.search(name) for name in names):
        expected = "one of, or a list of," if has_several else "one of"
        raise ValueError(f"{override.input_line}: expected {expected} {', '.join(options(group))}")


def _check_experiments(overrides: list[Override]) -> None:
    """Raises ValueError where two of the experiments would each be done by half.

    The later of two wins: it replaces an experiment all of whose groups it chooses, and goes with one that chooses other
    groups, or the same options. A choice on the command line wins over both.
    """
    chosen = {override.key_or_group for override in overrides}
    for override in overrides:
        names = override.value() if override.key_or_group == "experiment" else None
        if not isinstance(names, list):
            continue
        for first, second in combinations(map(str, names), 2):
            ours, theirs = _options_of(first), _options_of(second)
            clashing = [key for key in ours if key not in chosen and theirs.get(key, ours[key]) != ours[key]]
            if clashing and not ours.keys() <= theirs.keys():
                clashes = ", ".join(f"{key}={ours[key]} against {theirs[key]}" for key in clashing)
                raise ValueError(
                    f"experiment=[{','.join(map(str, names))}]: {first} and {second} exclude each other: {clashes}; "
                    "expected one of them, or each of these options chosen on the command line"
                )


@cache
def _options_of(experiment: str) -> dict[str, str]:
    """The options that an experiment chooses, by group; none where there is no such experiment."""
    path = f"experiment/{experiment}"
    if not _loader().repository.config_exists(path):
        return {}
    loaded: Any = _loader().repository.load_config(path)
    defaults = [default for default in loaded.defaults_list or () if default.is_override()]
    return {f"{one.group.lstrip('/')}{f'@{one.package}' if one.package else ''}": one.value for one in defaults}


@cache
def _loader() -> ConfigLoaderImpl:
    with hydra.initialize_config_dir(str(CONF_DIR), version_base=None):
        loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    return loader


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


def _plain(node: DictConfig) -> dict[str, Any]:
    """A node's values, not resolved."""
    values: Any = OmegaConf.to_container(node)
    return values


@cache
def _merged(overrides: tuple[str, ...]) -> bytes:
    config = _loader().load_configuration(CONFIG_NAME, list(overrides), RunMode.RUN)
    check_hydra(_plain(config.hydra))
    choices = OmegaConf.to_container(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return pickle.dumps((config, choices))
