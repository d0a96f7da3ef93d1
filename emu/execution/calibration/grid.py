"""Which steps are measured: sizes that double, of every kind that a machine's policies build, as far as the engine goes."""

from dataclasses import dataclass

from emu.execution.calibration.step_shape import StepShape


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far the engine goes: tokens of a pass, decodes of a step, tokens of a sequence, and KV blocks for all of them."""

    max_pass_tokens: int
    max_num_seqs: int
    max_seq_tokens: int
    num_blocks: int
    block_tokens: int

    def allow(self, shape: StepShape) -> bool:
        longest = max((*(n + before for n, before in shape.prompts), *shape.contexts))
        return (
            shape.num_tokens <= self.max_pass_tokens
            and len(shape.contexts) <= self.max_num_seqs
            and longest <= self.max_seq_tokens
            and shape.num_blocks(self.block_tokens) <= self.num_blocks
        )


def grid(bounds: Bounds, quick: bool) -> list[StepShape]:
    """Prompts alone and together, chunks with tokens before them, decodes by batch and context, both mixed."""
    shapes = [*_prefills(bounds, quick), *_decodes(bounds, quick), *_mixed(bounds, quick)]
    return list(dict.fromkeys(shape for shape in shapes if bounds.allow(shape)))


def _sizes(largest: int, quick: bool) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... up to `largest`; every second of them where it is to be quick."""
    sizes = [1, 2]
    while 2 * sizes[-1] <= largest:
        sizes += [sizes[-1] * 3 // 2, 2 * sizes[-1]]
    sizes = [size for size in sizes if size < largest]
    return [*(sizes[::2] if quick else sizes), largest]


def _prefills(bounds: Bounds, quick: bool) -> list[StepShape]:
    longest = min(bounds.max_pass_tokens, bounds.max_seq_tokens)
    prompts = [((num_tokens, 0),) for num_tokens in _sizes(longest, quick)]
    prompts += [((num_tokens, 0),) * number for number in (2, 4, 8) for num_tokens in ((96,) if quick else (24, 96, 384))]
    prompts += [((num_tokens, 0), (3 * num_tokens, 0)) for num_tokens in ((100,) if quick else (20, 100, 400))]
    chunks = (128,) if quick else (32, 128, 512)
    prompts += [
        ((num_tokens, before),) for num_tokens in chunks for before in (longest // 4, longest - num_tokens) if before > 0
    ]
    return [StepShape(shape) for shape in prompts]


def _decodes(bounds: Bounds, quick: bool) -> list[StepShape]:
    longest = bounds.max_seq_tokens
    shapes = []
    for number in _sizes(bounds.max_num_seqs, quick):
        for context in (longest // 32, longest // 2) if quick else (longest // 64, longest // 8, longest // 2, longest):
            shapes.append(StepShape((), (max(1, context),) * number))
        if number > 1:  # as batches are: some have just begun, some are long
            spread = tuple(max(1, longest * (index + 1) // (number + 1)) for index in range(number))
            shapes.append(StepShape((), spread))
    return shapes


def _mixed(bounds: Bounds, quick: bool) -> list[StepShape]:
    shapes = []
    most, longest = bounds.max_num_seqs, bounds.max_seq_tokens
    for prompt in ((48, 0),), ((192, 0),), ((96, 0), (96, 0)), ((768, 0),), ((128, longest // 4),):
        for number in (max(1, most // 8), most // 2) if quick else (1, max(2, most // 8), most // 2):
            for context in (longest // 8,) if quick else (longest // 32, longest // 3):
                shapes.append(StepShape(prompt, (max(1, context),) * number))
    return shapes
