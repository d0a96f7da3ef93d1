"""What the engine raises where what it was given cannot be used."""


class EngineError(ValueError):
    """A checkpoint, device, prompt or size that the engine cannot work with. The text is one line for the user."""
