"""What a configuration may name to be made: of each group the targets in its folder of `conf/`, and nothing anywhere else.

A configuration may come from anywhere (`--config-dir`, an experiment that was sent). Importing a name runs code, so names are
compared as text, all of them before the first is imported.
"""

import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin

from emu.compose import CONF_DIR
from emu.hydra_node import TARGET, TargetError


def check_targets(place: str, value: Any, annotation: Any, folders: Mapping[Any, str]) -> None:
    """Check every `_target_` at `place` and below it, of which `annotation` is what is expected there.

    `folders` are the groups of `conf/` by what they are annotated with. Raises TargetError.
    """
    if isinstance(value, list):
        for index, item in enumerate(value):
            check_targets(f"{place}[{index}]", item, None, folders)
    if not isinstance(value, dict):
        return
    parameters: Mapping[str, Any] = {}
    if TARGET in value:
        name, allowed = value[TARGET], sorted(_allowed(annotation, folders))
        if name not in allowed:
            expected = f"one of {', '.join(allowed)}" if allowed else f"plain data, without {TARGET}"
            raise TargetError(f"{place}.{TARGET}={name}: expected {expected}".lstrip("."))
        parameters = annotations(pkgutil.resolve_name(name))
    for key, item in value.items():
        of_item = parameters.get(key) if TARGET in value else _of_values(annotation)
        check_targets(f"{place}.{key}" if place else str(key), item, of_item, folders)


def annotations(target: Callable[..., Any]) -> dict[str, Any]:
    """What the parameters of `target` are annotated with, by name."""
    return {name: parameter.annotation for name, parameter in inspect.signature(target, eval_str=True).parameters.items()}


def is_known(target: str) -> bool:
    """True if a file of `conf/` names this target: it may be imported."""
    return any(target in _targets(folder.name) for folder in CONF_DIR.iterdir() if folder.is_dir())


def _allowed(annotation: Any, folders: Mapping[Any, str]) -> Iterator[str]:
    for type_ in get_args(annotation) if isinstance(annotation, UnionType) else (annotation,):
        if type_ in folders:
            yield from _targets(folders[type_])
        elif inspect.isclass(type_) and type_.__module__.startswith("emu."):
            yield f"{type_.__module__}.{type_.__qualname__}"


def _of_values(annotation: Any) -> Any:
    return get_args(annotation)[1] if get_origin(annotation) in (dict, Mapping) else None


@cache
def _targets(folder: str) -> frozenset[str]:
    texts = (path.read_text("utf-8") for path in CONF_DIR.glob(f"{folder}/*.yaml"))
    found = (re.search(rf"^{TARGET}: *(\S+)", text, re.MULTILINE) for text in texts)
    return frozenset(match[1] for match in found if match)
