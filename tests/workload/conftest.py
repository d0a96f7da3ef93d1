import pytest

from emu.workload.fixed import Fixed


@pytest.fixture
def fixed():
    """Build a `Fixed` workload from its defaults and the settings given."""

    def build(seed: int = 0, **settings):
        defaults = dict(prompt_tokens=1000, output_tokens=100, rate_rps=8, duration_s=30, arrivals="poisson", cv=1)
        return Fixed(**(defaults | settings)).build(seed)

    return build
