"""What one step computes, as messages tell it."""

from typing import NamedTuple

from emu.core.message import distinct


@distinct
class Prefill(NamedTuple):
    """A prompt in a step, or `num_tokens` of it after `num_before` in steps before: the first token is out when it has
    `num_left` 0. The tokens of all its steps include the `num_generated` output tokens of earlier attempts."""

    request_id: int
    attempt: int
    num_tokens: int
    num_generated: int
    num_before: int = 0
    num_left: int = 0


@distinct
class DecodeJoin(NamedTuple):
    """A request that decodes from this step on: `num_cached` tokens of KV are here, `num_generated` tokens are out."""

    request_id: int
    attempt: int
    num_cached: int
    num_generated: int


@distinct
class Batch(NamedTuple):
    """The forward pass of a step, told as the change against the step before on the same machine.

    `leaves` are decodes of the previous batch that are not in this one and have not finished: paused, evicted or
    cancelled. `num_decodes` counts the decodes in the pass, `context_tokens` what they attend to in all at the first step:
    cached tokens and the new one of each. `num_paused` counts decodes left out in favour of the prompts.
    """

    prefills: tuple[Prefill, ...]
    joins: tuple[DecodeJoin, ...]
    leaves: tuple[int, ...]
    num_decodes: int
    context_tokens: int
    num_paused: int
