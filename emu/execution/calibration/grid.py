"""Which steps are measured: sizes that double, of every kind that a machine's policies build, as far as the engine goes."""

from dataclasses import dataclass

from emu.execution.calibration.step_shape import StepShape


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far the engine goes: tokens of a pass, decodes of a step, tokens of a sequence, and KV blocks for all of them.

    `pads_decodes`: it runs 1, 2, 4, 8, ... decodes, and a number in between as the next larger one.
    """

    max_pass_tokens: int
    max_num_seqs: int
    max_seq_tokens: int
    num_blocks: int
    block_tokens: int
    pads_decodes: bool

    def allow(self, shape: StepShape) -> bool:
        longest = max((*(num_tokens + before for num_tokens, before in shape.prompts), *shape.contexts))
        return (
            shape.num_tokens <= self.max_pass_tokens
            and len(shape.contexts) <= self.max_num_seqs
            and longest <= self.max_seq_tokens
            and shape.num_blocks(self.block_tokens) <= self.num_blocks
        )

    def max_context(self, num_seqs: int) -> int:
        """The longest context of so many decodes of equal length."""
        return min(self.max_seq_tokens, self.num_blocks // num_seqs * self.block_tokens)


def grid(bounds: Bounds, quick: bool) -> list[StepShape]:
    """Prompts alone and together, chunks with tokens before them, decodes by batch and context, both mixed."""
    shapes = [*_prefills(bounds, quick), *_decodes(bounds, quick), *_mixed(bounds, quick)]
    return [shape for shape in dict.fromkeys(shapes) if bounds.allow(shape)]


def _sizes(first: int, largest: int, quick: bool) -> list[int]:
    """From `first` to `largest`, as 8, 12, 16, 24, 32, ...; only doubled where it is to be quick."""
    sizes = [first]
    while sizes[-1] * 2 <= largest:
        sizes += [sizes[-1] * 2] if quick else [sizes[-1] * 3 // 2, sizes[-1] * 2]
    return [*(size for size in sizes if size < largest), largest]


def _prefills(bounds: Bounds, quick: bool) -> list[StepShape]:
    longest = min(bounds.max_pass_tokens, bounds.max_seq_tokens)
    prompts: list[tuple[tuple[int, int], ...]] = [
        ((num_tokens, 0),) for num_tokens in (1, *_sizes(8 if quick else 2, longest, quick))
    ]
    prompts += [((num_tokens, 0),) * number for number in (2, 4, 8) for num_tokens in ((48,) if quick else (24, 96, 384))]
    prompts += [((num_tokens, 0), (3 * num_tokens, 0)) for num_tokens in ((60,) if quick else (20, 60, 200))]
    for num_tokens in (128,) if quick else (32, 128, 512):
        prompts += [((num_tokens, before),) for before in (num_tokens, 512, 2048)]
    return [StepShape(shape) for shape in prompts]


def _decodes(bounds: Bounds, quick: bool) -> list[StepShape]:
    """With contexts up to the longest, most of them short; of equal length, and unequal as in batches that grow one by one."""
    shapes = []
    for number in _batches(bounds, quick):
        longest = bounds.max_context(number)
        for context in (longest // 16, longest // 3) if quick else (longest // 64, longest // 12, longest // 4, longest):
            shapes.append(StepShape((), (max(1, context),) * number))
        shapes.append(StepShape((), tuple(max(1, longest * (index + 1) // (2 * number)) for index in range(number))))
    return shapes


def _batches(bounds: Bounds, quick: bool) -> list[int]:
    """Numbers of decodes. A matrix product of few rows takes its own time for each number of them."""
    few = [1, 2, 3, 4] if quick else [1, 2, 3, 4, 5, 6, 7]
    more = _sizes(8, max(8, bounds.max_num_seqs), quick)
    if bounds.pads_decodes:  # what is padded most
        more = [number + extra for number in more if number & (number - 1) == 0 for extra in (0, 1)]
    return [number for number in (*few, *more) if number < bounds.max_num_seqs] + [bounds.max_num_seqs]


def _mixed(bounds: Bounds, quick: bool) -> list[StepShape]:
    shapes = []
    most = max(1, bounds.max_num_seqs // 2)
    several = (((96, 0), (96, 0)), ((512, 0),))
    for prompt in ((48, 0),), ((192, 0),), ((128, 512),), *(() if quick else several):
        for number, divisor in ((2, 8), (most, 8), (most, 2)) if quick else ((1, 2), (4, 16), (4, 2), (most, 8), (most, 2)):
            shapes.append(StepShape(prompt, (max(1, bounds.max_context(number) // divisor),) * number))
    return shapes
