from dataclasses import replace

import pytest

from emu.core.setting import SettingError
from emu.core.timing.calibrated import CalibratedFamily
from emu.core.timing.model import TimingError


@pytest.mark.parametrize("family", ["profile", "splitwise_sim"])
def test_a_pair_without_a_fit_is_one_line_that_names_what_there_is(load, family):
    model, hardware = load("model", "bloom_176b"), replace(load("hardware", "dgx_a100"), name="dgx_v100")
    with pytest.raises(TimingError) as error:
        load("timing", family).for_machine(model, hardware)
    assert str(error.value) == (
        "no timing for model bloom_176b on hardware dgx_v100; there is: llama2_70b on dgx_a100, dgx_h100, "
        "dgx_h100_capped; bloom_176b on dgx_a100, dgx_h100, dgx_h100_capped"
    )


def test_a_model_that_can_be_executed_may_be_measured(load):
    model = replace(load("model", "bloom_176b"), name="mine", executable=object())
    with pytest.raises(TimingError, match=r"no timing for model mine on .*; timing=host measures what this host takes$"):
        load("timing", "profile").for_machine(model, load("hardware", "dgx_a100"))


def test_another_number_of_gpus_than_profiled_is_refused(load):
    model, hardware = load("model", "llama2_70b"), replace(load("hardware", "dgx_h100"), num_gpus=4)
    with pytest.raises(TimingError, match="profiled on 8 GPUs a machine, not on num_gpus=4"):
        load("timing", "profile").for_machine(model, hardware)


@pytest.mark.parametrize(
    ("fits", "key"), [(3, "timing.fits=3"), ({"m": [1]}, "timing.fits.m=[1]"), ({"m": {"h": "x"}}, "timing.fits.m.h=x")]
)
def test_what_is_no_fit_is_named(fits, key):
    with pytest.raises(SettingError) as error:
        CalibratedFamily(1, fits)
    assert str(error.value) == f"{key}: expected figures by model, hardware and name"
