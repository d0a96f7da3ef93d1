"""Objects that the committed configuration describes, one option at a time."""

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

CONF = Path(__file__).parents[1] / "conf"


@pytest.fixture(scope="session")
def load():
    """load(group, name) -> what conf/group/name.yaml describes."""
    return lambda group, name: instantiate(OmegaConf.load(CONF / group / f"{name}.yaml"))


@pytest.fixture(scope="session")
def timing(load):
    """timing(family, model, hardware) -> TimingModel, from the committed configuration."""
    return lambda family, model, hardware: load("timing", family).for_machine(load("model", model), load("hardware", hardware))
