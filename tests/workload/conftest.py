import os
from pathlib import Path

import pytest

from emu.workload.fixed import Fixed


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real traces; tests that need it skip where it is not there."""
    folder = Path(os.environ.get("EMU_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (folder / "azure_llm_2023").is_dir():
        pytest.skip(f"no real traces in {folder}; set EMU_DATA")
    return folder


@pytest.fixture
def fixed():
    """Build a `Fixed` workload from its defaults and the settings given."""

    def build(seed: int = 0, **settings):
        defaults = dict(prompt_tokens=1000, output_tokens=100, rate_rps=8, duration_s=30, arrivals="poisson", cv=1)
        return Fixed(**(defaults | settings)).build(seed)

    return build
