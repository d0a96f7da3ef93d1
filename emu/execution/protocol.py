"""The contract of what executes the steps of a machine: by a timing model, with torch, or elsewhere."""

from collections.abc import Callable
from typing import Protocol

from emu.core.batch import Batch
from emu.core.facts import OutputWritten
from emu.core.kv_bytes import KVBytes


class Executor(Protocol):
    """Executes the batches of one machine, and knows how its outputs end.

    A run of steps begins with `start`. Where the ends of its steps are known ahead, `start` and `extend` return them; where
    they are not, each returns infinity for the step in flight, and `on_step` of `open` is called at its end. Then the host
    takes `outputs`, calls `end_step`, and `extend` if there are to be `num_more_steps`. `finish` ends the run.

    With `has_kv_caches`, sequences have tokens and a KV cache here, for `resume`, `expect`, `complete`, `output_ids` and
    `cache_of`; without, these know none.
    """

    num_more_steps: int  # that the run in flight may have beyond those that were begun; 0 ends it
    has_kv_caches: bool
    probe_interval_s: float  # wall seconds between probes of an idle machine; 0 for none

    async def open(self, on_step: Callable[[Exception | None, float], None], on_layer: Callable[[int], None]) -> int | None:
        """Get ready. Returns the number of KV blocks there are, None where that is as declared. Raises EngineError.

        `on_step(error, end_s)` is called in the event loop as a step ends, at `end_s` by time.monotonic(); `on_layer(layer)`
        as a layer of what is being prefilled is done.
        """
        ...

    def start(self, batch: Batch, max_num_steps: int, start_s: float) -> list[float]:
        """Begin a run of `batch` at `start_s`, of at most `max_num_steps` steps. Returns the ends of its first steps."""
        ...

    def extend(self, boundaries_s: list[float]) -> None:
        """Go on: append the ends of some of the `num_more_steps` of the run in flight to those before."""
        ...

    def outputs(self) -> tuple[OutputWritten, ...]:
        """What was written of the requests that ended with the step that is over."""
        ...

    def end_step(self) -> None:
        """A step whose end was not known ahead is over."""
        ...

    def finish(self, num_steps: int) -> tuple[int, ...]:
        """The run is over after `num_steps` steps. Returns the requests that got their last token from its last step."""
        ...

    def has_ended(self, request_id: int, attempt: int, num_generated: int) -> bool:
        """True if a request with `num_generated` output tokens has no more to write."""
        ...

    def resume(self, request_id: int, attempt: int, output_ids: bytes) -> None:
        """This attempt will be prefilled here, after these output tokens of earlier ones."""
        ...

    def drop(self, request_id: int, attempt: int) -> None:
        """Forget the attempts of a request up to this one, and free their KV caches."""
        ...

    def output_ids(self, request_id: int, attempt: int) -> bytes:
        """The output tokens so far, as they travel; b"" where they are not known."""
        ...

    def is_prefilling(self, request_id: int, attempt: int) -> bool:
        """True if the step in flight computes (some of) its prompt."""
        ...

    def cache_of(self, request_id: int, attempt: int, num_tokens: int) -> KVBytes | None:
        """Where to read the KV cache of a sequence that is here, or is being prefilled."""
        ...

    def expect(self, request_id: int, attempt: int, num_tokens: int, is_real: bool) -> KVBytes | None:
        """Where to write the KV cache of `num_tokens` tokens that comes from another machine.

        One that is not `is_real` has bytes of the right number and no meaning. Raises EngineError where there is no room now.
        """
        ...

    def complete(self, request_id: int, attempt: int, output_ids: bytes) -> None:
        """A KV cache from another machine is here, and these output tokens are out; b"" where they are not known."""
        ...

    async def probe(self, is_idle: Callable[[], bool]) -> list[tuple[str, float]]:
        """Time probe steps as long as the machine is idle. Returns the phase of each and its seconds."""
        ...
