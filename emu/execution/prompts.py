"""The token ids of the prompts that real machines compute: those of the workload, or random ones where it has lengths only."""

from collections.abc import Sequence

import numpy as np

from emu.core.seeding import random_stream
from emu.core.setting import SettingError

TOKEN_ID = np.dtype("<i4")  # as the ids of an output travel


class Prompts:
    """`ids` of any request's prompt: the i-th has `prompt_tokens[i]` (int array) ids, each from 0 to `vocab_size` - 1.

    They are those `given` (an int32 array a request), or else drawn uniformly from the vocabulary. The drawn ids depend on
    `seed` and the number of the request alone, and are made at each call: every process that has a copy makes the same.
    Raises SettingError for a given id that is not in the vocabulary.
    """

    def __init__(
        self, prompt_tokens: np.ndarray, vocab_size: int, seed: int, given: Sequence[np.ndarray] | None = None
    ) -> None:
        self._ends = np.cumsum(prompt_tokens)
        self._vocab_size = vocab_size
        self._seed = seed
        # One array, whatever the number of requests: that is what is sent to every machine.
        self._given = None if given is None else np.concatenate(given)
        if self._given is not None and (outside := (self._given < 0) | (self._given >= vocab_size)).any():
            position = int(np.argmax(outside))
            raise SettingError(
                f"workload: request {self._ends.searchsorted(position, side='right')}: its prompt has token id "
                f"{self._given[position]}; expected 0 to {vocab_size - 1}, for the model has a vocabulary of {vocab_size}"
            )

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        return int(np.diff(self._ends, prepend=0).max())

    def ids(self, request_id: int) -> list[int]:
        end = int(self._ends[request_id])
        start = int(self._ends[request_id - 1]) if request_id else 0
        if self._given is not None:
            return self._given[start:end].tolist()
        return random_stream(self._seed, f"prompt {request_id}").integers(self._vocab_size, size=end - start).tolist()
