import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real traces; tests that need it skip where it is not there."""
    folder = Path(os.environ.get("EMU_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "azure_llm_2023").is_dir():
        pytest.skip(f"no real traces in {folder}; set EMU_DATA")
    return folder
