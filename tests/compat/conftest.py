from tests.configured import load, timing

__all__ = ["load", "timing"]
