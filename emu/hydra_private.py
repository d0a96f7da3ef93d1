"""All that is taken of Hydra's insides, for want of a public way. tests/test_architecture.py names it."""

from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser

__all__ = ["BasicSweeper", "Callbacks", "ConfigLoaderImpl", "get_args_parser"]
