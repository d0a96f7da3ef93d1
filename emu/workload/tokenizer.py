"""Text to the token ids that a model was trained on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emu.install import install_command
from emu.workload.workload import WorkloadError


def token_ids(texts: Sequence[str], path: Path) -> list[np.ndarray]:
    """The ids (int32) of each text by the Hugging Face tokenizer at `path`: a tokenizer.json, or the folder that it is in.

    Special tokens are added where its post-processor does so; texts are neither cut nor padded, whatever the file says of that.
    Raises WorkloadError where the library `tokenizers` is not installed and where the file is none of its.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise WorkloadError(
            f"workload.tokenizer={path}: the library tokenizers is not installed; expected {install_command('torch')}"
        ) from error
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise WorkloadError(f"workload.tokenizer={path}: no file {file}; expected a tokenizer.json, or a folder with one")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # it raises no narrower class
        cause = " ".join(str(error).split())
        raise WorkloadError(f"workload.tokenizer={path}: {cause}; expected the tokenizer.json of a model") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # One by one: a batch is no faster on two cores, and keeps more of each text than its ids until the last one is done.
    return [np.array(tokenizer.encode(text).ids, np.int32) for text in texts]
