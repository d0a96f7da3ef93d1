"""Rehearses clusters that serve large language models with prefill and decode on machines of their own (Splitwise).

The library is `run`, `sweep` and `load`: see emu/library.py. It is loaded at the first use, as it loads Hydra.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emu.library import Result, Sweep, load, run, sweep

__version__ = "0.1.0"
__all__ = ["Result", "Sweep", "__version__", "load", "run", "sweep"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'emu' has no attribute {name!r}")
    from emu import library

    return getattr(library, name)
