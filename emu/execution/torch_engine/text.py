"""Text to token ids and back, by a checkpoint's `tokenizer.json`."""

from pathlib import Path

from emu.execution.torch_engine.errors import EngineError
from emu.install import install_command


class Text:
    """Raises EngineError where the folder has no tokenizer.json that can be read."""

    def __init__(self, folder: str) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise EngineError(f"text prompts need the library tokenizers: {install_command('torch')}") from error
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise EngineError(f"{path}: no such file; a prompt as text needs it, one as token ids does not")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises no narrower type
            raise EngineError(f"{path}: no tokenizer: {error}") from error

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text).ids

    def decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids)
