"""Errors of a run whose text is for the user."""


class RunError(RuntimeError):
    """The run cannot start or go on."""
