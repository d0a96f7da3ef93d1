from facts import recorded
from hypothesis import given
from hypothesis import strategies as st

from emu.core.batch import Batch, Prefill
from emu.core.facts import TokensEmitted
from emu.core.timing.constant import ConstantTiming
from emu.results.extrapolation import num_extrapolated_steps


class RangeTiming(ConstantTiming):
    """Measured on prompts of `prompts` tokens together, and decodes of up to `max_context` tokens a sequence."""

    def __init__(self, prompts, max_context):
        super().__init__(0.001, 0.03)
        self.prompts, self.max_context = prompts, max_context

    def extrapolates(self, prompt_tokens, num_seqs, context_tokens):
        inside_prompts = not prompt_tokens or sum(prompt_tokens) in self.prompts
        inside_context = not num_seqs or context_tokens / num_seqs <= self.max_context
        return not (inside_prompts and inside_context)


ranges = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda ends: range(min(ends), max(ends) + 1))
batches = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.lists(st.integers(1, 40), max_size=3),
        st.integers(0, 3),
        st.integers(0, 50),
        st.integers(1, 30),
    ).filter(lambda batch: batch[1] or batch[2]),
    max_size=12,
)


@given(batches, ranges, st.integers(-1, 80), st.integers(-1, 80))
def test_equal_to_asking_at_every_step(batches, prompts, max_context, other_max_context):
    timings = [RangeTiming(prompts, max_context), RangeTiming(prompts, other_max_context)]
    facts, num_expected, now_s = [], 0, 0.0
    for machine, prompt_tokens, num_decodes, context, num_steps in batches:
        if prompt_tokens:
            num_steps = 1
        context_tokens = context * num_decodes
        for step in range(num_steps):
            context_now = context_tokens + step * num_decodes
            num_expected += timings[machine].extrapolates(prompt_tokens, num_decodes, context_now)
        prefills = tuple(Prefill(0, 1, num_tokens, 0) for num_tokens in prompt_tokens)
        ends_s = tuple(now_s + 0.01 * step for step in range(1, num_steps + 1))
        facts.append(TokensEmitted(machine, now_s, ends_s, Batch(prefills, (), (), num_decodes, context_tokens, 0), ()))
        now_s = ends_s[-1]
    columns = recorded([(0, 8, 1)], facts).columns()
    assert num_extrapolated_steps(columns.batches, timings) == num_expected
