"""The published judgement, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from emu.reproduction import published
from emu.reproduction.published import published_margins


class Reference:
    """A prefill takes 1 ms a prompt token; a decode step 40 ms and 10 us for each "sequence"."""

    def prefill_s(self, prompt_tokens):
        return 0.001 * sum(prompt_tokens)

    def decode_s(self, num_seqs, context_tokens):
        return 0.04 + 0.00001 * num_seqs


@pytest.fixture
def columns(monkeypatch):
    """Two requests of 100 and 1,000 prompt tokens, with 5 and 11 tokens; a third does not finish."""
    monkeypatch.setattr(published, "measured_requests", lambda columns, warmup_s: np.array([True, True, False]))
    requests = SimpleNamespace(
        prompt_tokens=np.array([100, 1000, 100]),
        output_tokens=np.array([5, 11, 5]),
        ttft_s=np.array([0.2, 2.0, np.nan]),
        e2e_s=np.array([0.6, 3.1, np.nan]),
    )
    return SimpleNamespace(requests=requests)


def test_tbt_is_over_tokens_and_its_reference_is_read_at_the_prompt(columns):
    limits = {("ttft", "p50"): 2.0, ("tbt", "p90"): 1.5}
    settings = SimpleNamespace(limit=lambda metric, statistic: limits.get((metric, statistic), 5.0))
    margins = published_margins(columns, Reference(), settings)
    levels = {name: limits.get(tuple(name.split("_")), 5.0) / (1 + margin) for name, margin in margins.items()}
    ttft = [0.2 / 0.1, 2.0 / 1.0]
    tbt = [(0.4 / 5) / 0.041, (1.1 / 11) / 0.05]
    e2e = [0.6 / (0.1 + 4 * 0.041), 3.1 / (1.0 + 10 * 0.05)]
    for name, values in (("ttft", ttft), ("tbt", tbt), ("e2e", e2e)):
        assert levels[f"{name}_p50"] == pytest.approx(np.mean(values), rel=1e-12)
        assert levels[f"{name}_p90"] == pytest.approx(min(values) + 0.9 * (max(values) - min(values)), rel=1e-12)


def test_with_nothing_finished_there_is_nothing_to_judge(columns, monkeypatch):
    monkeypatch.setattr(published, "measured_requests", lambda columns, warmup_s: np.zeros(3, bool))
    assert published_margins(columns, Reference(), None) == {}
