"""outputs.jsonl: what real machines wrote, a line a request that finished on one."""

import json
from pathlib import Path

from emu.files import replacing
from emu.results.columns import Answers


def write_outputs(answers: Answers, path: Path) -> None:
    """Write to `path` a JSON object for each answer, in order of request: its number, the token ids of its output, and whether
    it stopped of itself. Raises OSError where it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        rows = zip(answers.request_id.tolist(), answers.token_ids, answers.stopped.tolist(), strict=True)
        for request, output_ids, stopped in rows:
            file.write(json.dumps({"request": request, "output_ids": output_ids, "stopped": stopped}) + "\n")
