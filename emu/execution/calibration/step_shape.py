"""What a step computes, as far as its time depends on it."""

from typing import NamedTuple

from emu.core.timing.model import TimingModel


class StepShape(NamedTuple):
    """One forward pass: of each prompt, or chunk of one, its tokens and the tokens before them; of each decode the tokens that
    it attends to, its new one included."""

    prompts: tuple[tuple[int, int], ...] = ()
    contexts: tuple[int, ...] = ()

    @property
    def phase(self) -> str:
        """prefill, decode or mixed."""
        if not self.prompts:
            return "decode"
        return "mixed" if self.contexts else "prefill"

    @property
    def num_seqs(self) -> int:
        return len(self.prompts) + len(self.contexts)

    @property
    def num_tokens(self) -> int:
        """Tokens that go through the dense layers."""
        return sum(num_tokens for num_tokens, _ in self.prompts) + len(self.contexts)

    @property
    def num_pairs(self) -> int:
        """Pairs of a prompt's token with itself or one before it, over all prompts."""
        return sum(num_tokens * (num_tokens + 1) // 2 + num_tokens * before for num_tokens, before in self.prompts)

    @property
    def num_before(self) -> int:
        """Tokens before the chunks, over all of them."""
        return sum(before for _, before in self.prompts)

    @property
    def context_tokens(self) -> int:
        return sum(self.contexts)

    def num_blocks(self, block_tokens: int) -> int:
        """KV blocks that its sequences take."""
        lengths = (*(num_tokens + before for num_tokens, before in self.prompts), *self.contexts)
        return sum(-(-length // block_tokens) for length in lengths)

    def predict_s(self, timing: TimingModel) -> float:
        """Its seconds by `timing`, as `prefill_pass_s` puts them together."""
        prompt_tokens = [num_tokens for num_tokens, _ in self.prompts]
        attention_s = sum(timing.chunk_attention_s(num_tokens, before) for num_tokens, before in self.prompts if before)
        if not prompt_tokens:
            return timing.decode_s(len(self.contexts), self.context_tokens)
        if not self.contexts:
            return timing.prefill_s(prompt_tokens) + attention_s
        return timing.mixed_s(prompt_tokens, len(self.contexts), self.context_tokens) + attention_s

    def is_outside(self, timing: TimingModel) -> bool:
        """Whether `timing` was not measured on passes like this."""
        return timing.extrapolates([num_tokens for num_tokens, _ in self.prompts], len(self.contexts), self.context_tokens)

    def __str__(self) -> str:
        prompts = " + ".join(f"{n} after {before}" if before else f"{n}" for n, before in self.prompts)
        decodes = f"{len(self.contexts)} decodes of {self.context_tokens}" if self.contexts else ""
        return ", ".join(filter(None, (prompts, decodes)))
