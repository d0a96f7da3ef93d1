"""Every figure of every timing file is checked when the file is loaded, and named where it cannot be."""

import copy
from pathlib import Path

import pytest
import yaml

from emu.build import build, compose, plain
from emu.config_error import ConfigError

CONF = Path(__file__).parents[3] / "conf" / "timing"
PAIRS = {"profile": "llama2_70b.dgx_a100", "splitwise_sim": "llama2_70b.dgx_h100", "llama_30m_cpu": "llama_30m.cpu_core"}
LISTS = {
    "profile": [("prefill_tokens", "prefill_s"), ("decode_num_seqs", "decode_s")],
    "splitwise_sim": [("batch_tokens", "prefill_s"), ("batch_tokens", "decode_s")],
    "llama_30m_cpu": [("pass_tokens", "pass_s"), ("decode_num_seqs", "decode_s")],
}
CURVES = [(family, *names) for family, of_family in LISTS.items() for names in of_family]
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def refused():
    """refused(family, change) -> the line with which the configuration is refused after `change` of one fit's figures."""
    values = plain(compose(["runtime=virtual", "workload=fixed", "workload.duration_s=1"]))
    files = {family: yaml.safe_load((CONF / f"{family}.yaml").read_text()) for family in PAIRS}

    def line(family, change):
        timing = copy.deepcopy(files[family])
        model, hardware = PAIRS[family].split(".")
        change(timing["fits"][model][hardware])
        with pytest.raises(ConfigError) as error:
            build({**copy.deepcopy(values), "timing": timing})
        text = str(error.value)
        assert "\n" not in text
        return text

    return line


@pytest.mark.parametrize("value", [NAN, INF, -INF, 0, -0.1, 1e308, 5e-324])
@pytest.mark.parametrize(("family", "sizes", "times"), CURVES)
def test_what_is_no_time_is_named(refused, family, sizes, times, value):
    def change(fit):
        fit[times][2] = value

    place = f"timing.fits.{PAIRS[family]}.{times}[2]"
    assert refused(family, change) == f"{place}={value}: expected a number from 1e-09 to 1e+06"


@pytest.mark.parametrize(("family", "sizes", "times"), CURVES)
def test_lists_that_do_not_fit_each_other_are_named(refused, family, sizes, times):
    place = f"timing.fits.{PAIRS[family]}"

    def repeated(fit):
        fit[sizes][2] = fit[sizes][1]

    assert refused(family, repeated).startswith(f"{place}.{sizes}[2]=")
    assert "does not ascend" in refused(family, repeated)
    assert refused(family, lambda fit: fit[times].pop()).startswith(f"{place}.{times}=[")
    assert f"one for each of {sizes}" in refused(family, lambda fit: fit[times].pop())
    assert refused(family, lambda fit: fit[sizes].clear()) == f"{place}.{sizes}=[]: expected a list of 2 numbers or more"
    assert refused(family, lambda fit: fit.pop(times)).startswith(f"{place}.{times} is missing; expected ")
    assert refused(family, lambda fit: fit.update({times: 0.1})) == f"{place}.{times}=0.1: expected a list of numbers"


@pytest.mark.parametrize(
    ("family", "name", "value", "expected"),
    [
        ("profile", "pair_saving_s", NAN, "expected a number from -1e+06 to 1e+06"),
        ("profile", "kv_bandwidth_share", 0, "expected a number from 1e-06 to 1"),
        ("profile", "kv_bandwidth_share", INF, "expected a number from 1e-06 to 1"),
        ("profile", "decode_num_seqs", [1, 2, 4, 8, 16, 32, 10**12], "expected a whole number from 1 to 1000000"),
        ("llama_30m_cpu", "pair_s", INF, "expected a number from 0 to 1e+06"),
        ("llama_30m_cpu", "seq_s", -1, "expected a number from 0 to 1e+06"),
        ("llama_30m_cpu", "probe_decode_s", 0, "expected a number from 1e-09 to 1e+06"),
        ("llama_30m_cpu", "decode_error", [0.1, NAN, 0.1], "expected a number >= 0"),
        ("llama_30m_cpu", "pass_z", 1, "no such figure; there are pass_tokens, "),
    ],
)
def test_other_figures_are_named(refused, family, name, value, expected):
    text = refused(family, lambda fit: fit.update({name: value}))
    assert text.startswith(f"timing.fits.{PAIRS[family]}.{name}") and expected in text


def test_a_lookup_that_goes_below_zero_is_refused(refused):
    def steep(fit):
        fit["decode_s"][0] = 0.01

    assert "decode_s[0]=0.01: the line from the second point through it is -0.00812 s at one token" in refused(
        "splitwise_sim", steep
    )


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["timing.decode_step_s=inf"], "timing.decode_step_s=inf: expected a number from 1e-09 to 1e+06"),
        (["timing.prefill_s_per_token=nan"], "timing.prefill_s_per_token=nan: expected a number from 1e-09 to 1e+06"),
    ],
)
def test_constants_are_named(overrides, line):
    with pytest.raises(ConfigError) as error:
        build(compose(["runtime=virtual", "timing=constant", *overrides]))
    assert str(error.value) == line
