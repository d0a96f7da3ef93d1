"""The files that hold a checkpoint's weights, found without torch: before anything starts."""

from pathlib import Path

from emu.execution.torch_engine.errors import EngineError
from emu.files import parse_json, read_text

SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """The checkpoint's safetensors files. Raises EngineError where there is none, or not all of them."""
    if (folder / SINGLE_FILE).is_file():  # transformers, too, prefers it where there are both
        return [folder / SINGLE_FILE]
    index = folder / INDEX_FILE
    if not index.is_file():
        raise EngineError(f"{folder}: no weights; expected {SINGLE_FILE} or {INDEX_FILE}")
    try:
        shards = sorted(set(parse_json(read_text(index))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise EngineError(f"{index}: expected a JSON object with weight_map, from tensors to files") from error
    for shard in shards:
        if not isinstance(shard, str) or shard in ("", ".", "..") or Path(shard).name != shard or "\0" in shard:
            raise EngineError(f"{index}: weight_map has the file {shard!r}; expected names of files beside it")
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise EngineError(f"{folder}: {len(missing)} of {len(shards)} files in {INDEX_FILE} are missing: {', '.join(missing)}")
    return [folder / shard for shard in shards]
