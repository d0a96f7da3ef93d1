"""One prompt answered by an engine, as `python -m emu.execution.torch_engine` does."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emu.execution.torch_engine.architecture import Architecture
from emu.execution.torch_engine.engine import Chunk, Engine
from emu.execution.torch_engine.errors import EngineError
from emu.execution.torch_engine.sampling import Sampling, next_tokens


@dataclass(frozen=True, slots=True)
class Generation:
    """`token_ids` as generated; `logits` float32 (new tokens, vocab_size), what each was drawn from; seconds of wall time."""

    token_ids: list[int]
    logits: np.ndarray
    prefill_s: float
    decode_s: float


def check_prompt(architecture: Architecture, prompt: Sequence[int], max_new_tokens: int) -> None:
    """Raises EngineError where the prompt is empty, has ids that the vocabulary lacks, or is too long with its answer."""
    if not prompt:
        raise EngineError("the prompt has no tokens: expected at least one")
    for token in prompt:
        if not 0 <= token < architecture.vocab_size:
            raise EngineError(f"token id {token}: expected 0 to {architecture.vocab_size - 1}, the model's vocabulary")
    if len(prompt) + max_new_tokens > architecture.max_positions:
        raise EngineError(
            f"a prompt of {len(prompt)} tokens and {max_new_tokens} new ones: "
            f"expected at most {architecture.max_positions} together, the model's context"
        )


def generate(
    engine: Engine, prompt: Sequence[int], max_new_tokens: int, eos_ids: Sequence[int], sampling: Sampling
) -> Generation:
    """Tokens after `prompt`, one by one, up to one of `eos_ids` (included) or `max_new_tokens` of them. Raises EngineError
    where the prompt is none for this engine, or its cache has no room."""
    check_prompt(engine.architecture, prompt, max_new_tokens)
    num_tokens = len(prompt) + max_new_tokens
    blocks = engine.cache.allocate(-(-num_tokens // engine.cache.block_tokens), timeout_s=0)
    token_ids, logits, ends_s = [], [], [time.perf_counter()]
    chunk = Chunk(prompt, 0, blocks)
    while True:
        row = engine.logits([chunk])
        position = chunk.context
        token_ids += next_tokens(row, [sampling], [position])
        ends_s.append(time.perf_counter())
        logits.append(row[0].cpu().numpy())
        if token_ids[-1] in eos_ids or len(token_ids) == max_new_tokens:
            break
        chunk = Chunk(token_ids[-1:], position, blocks)
    engine.cache.release(blocks)
    return Generation(token_ids, np.stack(logits), ends_s[1] - ends_s[0], ends_s[-1] - ends_s[1])
