"""Errors of a run whose text is for the user."""


class RunError(RuntimeError):
    """The run cannot start or go on."""


class NotStartedError(RunError):
    """The run cannot start: nothing has happened yet."""


def gist(error: BaseException) -> str:
    """The line of Ray's text that says what happened: the first, or the last where it is a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if any("Traceback" in line or line.startswith("File ") for line in lines) else lines[0]
