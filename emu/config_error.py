"""What is wrong with a configuration, in one line for the user."""

import pkgutil
import re
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from emu import compose as composition
from emu import targets

HYDRAS_MERGE_LEAD = "Error merging override "
OMEGACONFS_LEAD = "ValueError raised while resolving interpolation: "  # before what a resolver raises
MAX_WORD = 300  # characters of a word on an error line: a path may have some 250


class ConfigError(ValueError):
    """A configuration that cannot be used. The text is one line for the user."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns what Hydra, OmegaConf, the constructors and files that they read raise into ConfigError."""
    try:
        yield
    except RecursionError as error:
        raise ConfigError("the configuration is nested too deeply; expected at most some tens of levels") from error
    except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(explain(error)) from error


def explain(error: Exception) -> str:
    """What is wrong, in one line for the user, on which control characters and very long words do no harm."""
    text = re.sub(rf"\S{{{MAX_WORD + 1},}}", lambda word: f"{word[0][: MAX_WORD - 20]}...{word[0][-17:]}", _explanation(error))
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def _explanation(error: Exception) -> str:
    cause = error.__cause__
    match error:
        case MissingConfigException(missing_cfg_file=str(path)):
            group, _, option = path.rpartition("/")
            allowed = composition.options(group.partition("@")[0])
            return f"{group}={option}: no such option; expected one of {', '.join(allowed)}"
        case OverrideParseException():
            return _unparsed(error.override)
        case MissingMandatoryValue(full_key=str(key)):
            return f"{key} is required: set {key}=..."
        case OSError(filename=str(path), strerror=str(problem)):
            return f"{path}: {problem}"
        case OmegaConfBaseException(full_key=str(key)):
            return f"{key}: {str(error).splitlines()[0].removeprefix(OMEGACONFS_LEAD)}"
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.full_key:
        return unknown_key(cause.full_key, list(cause.parent_node), cause.parent_node.get("_target_"))
    hints = ("To append to", "See http")
    lines = str(error).removeprefix(OMEGACONFS_LEAD).splitlines()
    if lines and lines[0].startswith(HYDRAS_MERGE_LEAD):
        return f"{lines[0].removeprefix(HYDRAS_MERGE_LEAD)}: cannot take the place of what is there; expected the same kind"
    return " ".join(line.strip() for line in lines if not line.startswith(hints))


def _unparsed(override: str) -> str:
    """What is wrong with an override that Hydra's grammar does not take, with the characters that may be to blame."""
    expected = "expected KEY=VALUE, with quotes around a value that has spaces or any of =,:()[]{}"
    _, _, value = override.partition("=")
    to_blame = dict.fromkeys(re.findall(r"""[\x00-\x1f\x7f=,:()\[\]{}'"]""", value))
    found = f"the value has {' '.join(to_blame)}; " if to_blame else ""
    return f"{override}: {found}{expected}"


def unknown_key(key: str, siblings: list[str], target: str | None) -> str:
    """The line for a setting that there is not, beside `siblings`, which `target` would be made of."""
    place, _, name = key.rpartition(".")
    why_not = getattr(pkgutil.resolve_name(target), "WHY_NOT", {}) if target and targets.is_known(target) else {}
    if name in why_not:
        return f"{key}: no such setting with this {place}: {why_not[name]}"
    allowed = [sibling for sibling in siblings if sibling != "hydra" and not sibling.startswith("_")]
    return f"{key}: no such setting; {f'{place} has' if place else 'there are'} {', '.join(allowed) or 'none'}"
