"""The paper's clusters by name: their sizes, what they may draw and cost, and how experiments go with other settings."""

import pytest

from emu.build import build, compose
from emu.config_error import ConfigError

# SPLITWISE.md §7: machines of the baselines, prompt and token machines of the Splitwise designs.
SIZES = {
    "iso_power_code": ["70", "40", "55P15T", "35P5T", "35P8T", "35P7T"],
    "iso_power_conv": ["70", "40", "45P25T", "25P15T", "25P26T", "25P21T"],
    "iso_cost_conv": ["86", "40", "51P35T", "25P15T", "30P21T", "30P10T"],
    "iso_cost_code": ["86", "40", "66P20T", "35P5T", "35P10T", "35P7T"],
}
DESIGNS = ["baseline_a100", "baseline_h100", "splitwise_aa", "splitwise_hh", "splitwise_ha", "splitwise_hhcap"]
CELLS = [(row, design, size) for row, sizes in SIZES.items() for design, size in zip(DESIGNS, sizes, strict=True)]
NUM_DGX_H100, RELATIVE_POWER, PRICE_PER_HOUR = 40, 1.75, 38.0  # what caps both
OVER_THE_CAP = {"iso_cost_code_splitwise_hhcap": 1.05}  # as the paper prints it: 42 machines at the price of the 40


def machines_of(*overrides):
    return build(compose(list(overrides))).run_config.cluster.machines


@pytest.mark.parametrize(("row", "design", "size"), CELLS)
def test_a_cell_of_the_table(row, design, size):
    name = f"{row}_{design}"
    config = compose([f"experiment={name}"])
    num_of = {role: 0 for role in ("prefill", "decode", "mixed")}
    plan = build(config)
    machines = plan.run_config.cluster.machines
    for machine in machines:
        num_of[machine.role] += 1
    assert size == (f"{num_of['prefill']}P{num_of['decode']}T" if num_of["prefill"] else str(num_of["mixed"]))
    power = sum(machine.hardware.relative_power for machine in machines) / (NUM_DGX_H100 * RELATIVE_POWER)
    price = sum(machine.hardware.price_per_hour for machine in machines) / (NUM_DGX_H100 * PRICE_PER_HOUR)
    share = power if row.startswith("iso_power") else price
    assert share <= OVER_THE_CAP.get(name, 1)
    assert share > 0.98  # it is not much less either
    assert plan.runtime.name == "virtual"
    assert config.workload.lengths == ("azure_code" if "_code_" in name else "azure_conv")
    assert (config.workload.duration_s, config.workload.arrivals) == (120, "poisson")


def test_what_an_experiment_says_is_changed_like_any_setting():
    name = "experiment=iso_power_conv_splitwise_aa"
    assert len(build(compose([name, "workload.rate_rps=1", "workload.duration_s=5"])).run_config.workload) < 20
    hardware = [machine.hardware.name for machine in machines_of("cluster=splitwise_ha", name)]
    assert hardware == ["dgx_h100"] * 45 + ["dgx_a100"] * 25  # an explicit cluster= wins, of the experiment's size
    config = compose([name, "placement=jsq", "model=bloom_176b", "runtime=ray", "cluster.num_token=3"])
    assert (config.placement._target_, config.model.name) == ("emu.core.placement.jsq.Jsq", "bloom_176b")
    assert (config.runtime._target_, config.cluster.num_token) == ("emu.runtime.ray_runtime.RayRuntime", 3)
    trace = compose([name, "workload=trace", "workload.path=x"])
    assert "rate_rps" not in trace.workload


def test_of_several_experiments_the_last_one_wins():
    ha, hh = "iso_cost_code_splitwise_ha", "iso_power_conv_splitwise_hh"
    for both, hardware, sizes, lengths in (
        (f"{hh},{ha}", "dgx_a100", (35, 10), "azure_code"),
        (f"{ha},{hh}", "dgx_h100", (25, 15), "azure_conv"),
    ):
        config = compose([f"experiment=[{both}]"])
        assert config.cluster.token_hardware.name == hardware
        assert (config.cluster.num_prompt, config.cluster.num_token) == sizes
        assert config.workload.lengths == lengths


@pytest.mark.parametrize("both", ["iso_power_conv_splitwise_hh,splitwise_sim", "splitwise_sim,iso_power_conv_splitwise_hh"])
def test_the_published_simulator_on_a_cluster_of_the_tables(both):
    plan = build(compose([f"experiment=[{both}]", "model=bloom_176b", "workload.duration_s=2"]))
    cluster = plan.run_config.cluster
    assert [machine.name for machine in cluster.machines][::24] == ["p0", "p24"]
    assert (len(cluster.machines), type(cluster.placement).__name__) == (40, "SplitwiseSim")
    assert {type(machine.timing).__name__ for machine in cluster.machines} == {"SplitwiseSimTiming"}


@pytest.mark.parametrize("override", ["experiment=iso_best", "experiment=[iso_power_conv_splitwise_hh,iso_best]"])
def test_an_experiment_that_is_not_there_is_one_line(override):
    with pytest.raises(
        ConfigError, match=r"^experiment=iso_best: no such option; expected one of iso_cost_code_baseline_a100, "
    ):
        compose([override])


def test_no_experiment_is_the_default():
    assert compose(["experiment=[]"]) == compose([])
