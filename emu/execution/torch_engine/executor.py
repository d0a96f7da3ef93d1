"""Executes the batches of one machine with an engine: keeps its sequences, their tokens and their KV blocks."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from emu.core.batch import Batch, Prefill
from emu.core.facts import OutputWritten
from emu.core.seeding import request_seed
from emu.execution.prompts import TOKEN_ID, Prompts
from emu.execution.torch_engine.engine import Chunk, Engine
from emu.execution.torch_engine.sampling import Sampling
from emu.execution.torch_engine.sequence_cache import SequenceCache

Key = tuple[int, int]  # request, attempt
WARM_UP_TOKENS = 256  # of the prompts that warm it up, but for the longest


@dataclass(slots=True, eq=False)
class _Sequence:
    """One attempt of a request: its prompt and the output tokens that are out, the first `num_cached` of them in `blocks`."""

    key: Key
    token_ids: list[int]
    num_prompt: int
    sampling: Sampling
    num_cached: int = 0
    blocks: list[int] = field(default_factory=list)
    incoming: SequenceCache | None = None  # where its KV cache comes from another machine

    @property
    def output_ids(self) -> list[int]:
        return self.token_ids[self.num_prompt :]


class Stepped(NamedTuple):
    """What a step came to: the requests that got their last token, in order of the batch, and what was written of them."""

    finished: tuple[int, ...]
    answers: tuple[OutputWritten, ...]


class TorchExecutor:
    """Executes what one machine's state machine decides. `output_tokens[request_id]` is how many tokens a request writes, or
    at most where one of `stop_ids` ends it.

    Only `step` may be called in another thread than the rest, one at a time. What is dropped while a step uses it goes with
    `end_step`. `seed` is of the draws where `temperature` is not 0.
    """

    def __init__(
        self,
        engine: Engine,
        prompts: Prompts,
        output_tokens: Sequence[int],
        stop_ids: Collection[int],
        temperature: float,
        top_p: float,
        seed: int,
    ) -> None:
        self._engine = engine
        self._prompts = prompts
        self._output_tokens = output_tokens
        self._stop_ids = frozenset(stop_ids)
        self._sampling = (temperature, top_p, seed)
        self._sequences: dict[Key, _Sequence] = {}
        self._resumed: dict[Key, bytes] = {}  # output ids of attempts that go on where an earlier one was lost
        self._decodes: dict[int, _Sequence] = {}
        self._prefills: list[tuple[Prefill, _Sequence]] = []
        self._in_step: set[Key] = set()
        self._doomed: set[Key] = set()

    # --- what is told -------------------------------------------------------------------------------------------------

    def resume(self, request_id: int, attempt: int, output_ids: bytes) -> None:
        """This attempt will be prefilled here, with these output tokens of earlier ones."""
        if output_ids:
            self._resumed[request_id, attempt] = output_ids

    def expect(self, request_id: int, attempt: int, num_tokens: int, is_real: bool) -> SequenceCache:
        """The KV cache of `num_tokens` tokens will come from another machine: where to write it. One that is not `is_real` has
        bytes of the right number and no meaning. Raises EngineError where there are no blocks for it now."""
        cache = self._engine.cache
        blocks = cache.allocate(-(-num_tokens // cache.block_tokens), timeout_s=0.0)
        seq = self._add((request_id, attempt), b"")
        seq.num_cached, seq.blocks = num_tokens, blocks
        seq.incoming = SequenceCache(cache, blocks, num_tokens, makes_finite=not is_real)
        return seq.incoming

    def complete(self, request_id: int, attempt: int, output_ids: bytes) -> None:
        """An expected KV cache is here, and these output tokens of its sequence are out; b"" where nobody knows them."""
        seq = self._sequences[request_id, attempt]
        seq.token_ids[seq.num_prompt :] = _from_bytes(output_ids)

    def drop(self, request_id: int, attempt: int) -> None:
        """Forget the attempts of a request up to this one, and free their blocks."""
        for key in [key for key in self._resumed if key[0] == request_id and key[1] <= attempt]:
            del self._resumed[key]
        for key in [key for key in self._sequences if key[0] == request_id and key[1] <= attempt]:
            if key in self._in_step:
                self._doomed.add(key)
            else:
                self._forget(key)

    def warm_up(self, num_tokens: int) -> None:
        """Run a prompt of so many tokens, the longest there will be, or as many as there is room for; then shorter ones and
        decodes: no step of the run is to be the first of its kind, or the first to take so much memory."""
        cache = self._engine.cache
        longest = min(num_tokens, cache.num_free_blocks * cache.block_tokens - 1)
        blocks = cache.allocate(-(-(longest + 1) // cache.block_tokens))
        for length in (longest, *[min(longest, WARM_UP_TOKENS)] * 3):
            self._engine.step([Chunk([0] * length, 0, blocks)])
            self._engine.step([Chunk([0], length, blocks)])
        cache.release(blocks)

    # --- what is asked ------------------------------------------------------------------------------------------------

    @property
    def num_prefills(self) -> int:
        """Of the step in flight, or the next."""
        return len(self._prefills)

    def has_ended(self, request_id: int, attempt: int, num_generated: int) -> bool:
        """Whether a request with so many tokens out has written all of them."""
        seq = self._sequences.get((request_id, attempt))
        stopped = seq is not None and len(seq.output_ids) == num_generated and seq.token_ids[-1] in self._stop_ids
        return stopped or num_generated >= self._output_tokens[request_id]

    def output_ids(self, request_id: int, attempt: int) -> bytes:
        """The output tokens that are out, as they travel; b"" for a sequence that is not here (any more)."""
        seq = self._sequences.get((request_id, attempt))
        return b"" if seq is None else np.array(seq.output_ids, TOKEN_ID).tobytes()

    def is_prefilling(self, request_id: int, attempt: int) -> bool:
        """Whether the step in flight computes (some of) its prompt."""
        return (request_id, attempt) in self._in_step and request_id not in self._decodes

    def cache_of(self, request_id: int, attempt: int, num_tokens: int) -> SequenceCache:
        """Where to read the KV cache of a sequence that is here, or is being prefilled."""
        return SequenceCache(self._engine.cache, self._sequences[request_id, attempt].blocks, num_tokens)

    # --- steps --------------------------------------------------------------------------------------------------------

    def start(self, batch: Batch) -> None:
        """Take what steps from now on compute, as the change against those before."""
        prefills, joins, leaves, *_ = batch
        for request_id in leaves:
            self._decodes.pop(request_id, None)
        for request_id, attempt, num_cached, num_generated in joins:
            seq = self._sequences[request_id, attempt]
            self._stand_in(seq, num_generated)
            if seq.num_cached != num_cached:
                raise RuntimeError(f"request {request_id} has {seq.num_cached} tokens of KV cache here, not {num_cached}")
            self._decodes[request_id] = seq
        self._prefills = [(prefill, self._prefilled(prefill)) for prefill in prefills]

    def begin_step(self) -> None:
        """`step` is about to be called."""
        self._in_step = {seq.key for seq in self._decodes.values()} | {seq.key for _, seq in self._prefills}

    def step(self, on_layer: Callable[[int], None] | None = None) -> Stepped:
        """One forward pass; see `Engine.step`. In the thread of the steps."""
        decodes = list(self._decodes.values())
        chunks = [self._chunk(seq, 1, True) for seq in decodes]
        chunks += [self._chunk(seq, prefill.num_tokens, not prefill.num_left) for prefill, seq in self._prefills]
        tokens = self._engine.step(chunks, on_layer)
        for seq, chunk, token in zip([*decodes, *(seq for _, seq in self._prefills)], chunks, tokens, strict=True):
            seq.num_cached += len(chunk.token_ids)
            if chunk.wants_token:
                seq.token_ids.append(token)
        done = [seq for prefill, seq in self._prefills if not prefill.num_left]
        ended = [seq for seq in (*decodes, *done) if self.has_ended(*seq.key, len(seq.output_ids))]
        answers = tuple([self._answer(seq) for seq in ended])
        return Stepped(tuple([seq.key[0] for seq in ended]), answers)

    def end_step(self, stepped: Stepped) -> None:
        """The step is over: forget who finished, and what was dropped meanwhile."""
        for answer in stepped.answers:
            self._doomed.add(answer[:2])
        self._in_step = set()
        for key in self._doomed & self._sequences.keys():
            self._forget(key)
        self._doomed.clear()
        self._prefills = []

    # ------------------------------------------------------------------------------------------------------------------

    def _add(self, key: Key, output_ids: bytes) -> _Sequence:
        prompt_ids = self._prompts.ids(key[0])
        temperature, top_p, seed = self._sampling
        sampling = Sampling(temperature, top_p, request_seed(seed, key[0]))
        self._sequences[key] = seq = _Sequence(key, prompt_ids + _from_bytes(output_ids), len(prompt_ids), sampling)
        return seq

    def _prefilled(self, prefill: Prefill) -> _Sequence:
        key = (prefill.request_id, prefill.attempt)
        if prefill.num_before:
            return self._sequences[key]
        seq = self._add(key, self._resumed.pop(key, b""))
        self._stand_in(seq, prefill.num_generated)
        return seq

    def _stand_in(self, seq: _Sequence, num_generated: int) -> None:
        """Tokens of its prompt for output tokens that machines wrote which know none."""
        for index in range(len(seq.output_ids), num_generated):
            seq.token_ids.append(seq.token_ids[index % seq.num_prompt])

    def _chunk(self, seq: _Sequence, num_tokens: int, wants_token: bool) -> Chunk:
        end = seq.num_cached + num_tokens
        block_tokens = self._engine.cache.block_tokens
        if (num_missing := -(-end // block_tokens) - len(seq.blocks)) > 0:
            seq.blocks += self._engine.cache.allocate(num_missing)
        return Chunk(seq.token_ids[seq.num_cached : end], seq.num_cached, seq.blocks, wants_token, seq.sampling)

    def _answer(self, seq: _Sequence) -> OutputWritten:
        request_id, attempt = seq.key
        output_ids = tuple(seq.output_ids)
        return OutputWritten(request_id, attempt, output_ids, len(output_ids) < self._output_tokens[request_id])

    def _forget(self, key: Key) -> None:
        seq = self._sequences.pop(key)
        if self._decodes.get(key[0]) is seq:
            del self._decodes[key[0]]
        if seq.incoming is not None:
            seq.incoming.close()
        self._engine.cache.release(seq.blocks)


def _from_bytes(output_ids: bytes) -> list[int]:
    return np.frombuffer(output_ids, TOKEN_ID).tolist()
