"""Checks Hydra's own node of a configuration.

Hydra imports and calls what that node names before emu sees anything of it, so names are compared as text.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

TARGET = "_target_"
LAUNCHERS = (
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
)
SWEEPERS = ("hydra._internal.core_plugins.basic_sweeper.BasicSweeper",)
CALLBACK = re.compile(r"hydra\.experimental\.callbacks\.[A-Z]\w*")
HANDLERS = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter")
# What Hydra's own logging refers to; a reference to anything else would be imported.
LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"
REFERENCE = re.compile(r"\s*\$\{.*\}\s*", re.DOTALL)
MADE = ("launcher", "sweeper", "callbacks", "job_logging", "hydra_logging")  # Hydra instantiates all that is in them
LOG_REFERENCES = ("ext://sys.stdout", "ext://sys.stderr", LOG_FILE)


class TargetError(ValueError):
    """A configuration that asks for what it may not have. The text is one line for the user."""


def check_search_path(places: Sequence[str]) -> None:
    """Raises TargetError where Hydra would look for options elsewhere than in folders: it imports packages for that."""
    for place in places:
        if not place.startswith("file://") and ("://" in place or "${" in place):
            raise TargetError(f"hydra.searchpath={place}: expected a folder, or file://FOLDER")


def check_hydra(hydra: Mapping[str, Any]) -> None:
    """Check Hydra's own node, values not resolved, for what would run or write elsewhere than in the run's directory.

    Raises TargetError.
    """
    places = hydra["searchpath"]
    check_search_path(places if isinstance(places, list) else [str(places)])
    for key, value in hydra.items():
        if key in MADE:
            _check_known(f"hydra.{key}", value)
        if key in ("job_logging", "hydra_logging"):
            _check_logging(f"hydra.{key}", value)
        else:
            _check_hydra_targets(f"hydra.{key}", value)
    if hydra["job"]["env_set"]:
        raise TargetError(f"hydra.job.env_set={hydra['job']['env_set']}: expected {{}}: set the environment in your shell")
    subdir = hydra["output_subdir"]
    if subdir is not None and (subdir in ("", "..") or "${" in subdir or PurePath(subdir).name != subdir):
        raise TargetError(f"hydra.output_subdir={subdir}: expected the name of a folder in the run's directory, or null")


def _check_known(place: str, value: Any) -> None:
    """Raises TargetError for a node given by reference, which may resolve to anything."""
    if isinstance(value, str) and REFERENCE.fullmatch(value) and value not in LOG_REFERENCES:
        raise TargetError(f"{place}={value}: expected what is meant, and no reference")
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ():
        _check_known(f"{place}.{key}", item)


def _check_hydra_targets(place: str, value: Any) -> None:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if key == TARGET and not _may_be_made(place, str(item)):
            raise TargetError(f"{place}.{TARGET}={item}: expected what Hydra's options have there")
        if key == "runtime_env" and item:
            raise TargetError(f"{place}.runtime_env={item}: expected null: the workers of a sweep run what emu is here")
        _check_hydra_targets(f"{place}.{key}", item)


def _may_be_made(place: str, target: str) -> bool:
    match place.split("."):
        case ["hydra", "launcher"]:
            return target in LAUNCHERS
        case ["hydra", "sweeper"]:
            return target in SWEEPERS
        case ["hydra", "callbacks", _]:
            return CALLBACK.fullmatch(target) is not None
    return False


def _check_logging(place: str, value: Any) -> None:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        is_reference = isinstance(item, str) and any(mark in item for mark in ("://", "${"))
        if key in ("()", ".") or (key == "class" and item not in HANDLERS) or (is_reference and item not in LOG_REFERENCES):
            raise TargetError(f"{place}.{key}={item}: expected one of logging's own handlers, and sys.stdout or sys.stderr")
        _check_logging(f"{place}.{key}", item)
    if isinstance(value, Mapping) and value.get("filename", LOG_FILE) != LOG_FILE:
        raise TargetError(f"{place}.filename={value['filename']}: expected {LOG_FILE}")
