"""What is found, written as an experiment, is the configuration that was run."""

import pytest

from emu.build import compose, plain
from emu.config_error import ConfigError
from emu.provisioning.winner import check_overrides, write_experiment


@pytest.mark.parametrize(
    "overrides",
    [
        ["cluster=splitwise_hh", "cluster.num_prompt=27", "cluster.num_token=3", "workload.rate_rps=70.5"],
        ["experiment=splitwise_sim", "model=bloom_176b", "cluster=baseline_a100", "cluster.num_machines=9"],
        ["experiment=[splitwise_sim]", "placement=jsq", "machine=paged", "cluster=splitwise_ha"],
        ["experiment=iso_cost_code_splitwise_hh", "workload.duration_s=5"],
        ["cluster=splitwise_aa", "hardware@cluster.token_hardware=dgx_h100", "slo.ttft_p50=1.5", "seed=3"],
        ["timing=constant", "timing.decode_step_s=1e-2", "faults=[{machine: d0, at_s: 10}]", "power=phase"],
    ],
)
def test_it_composes_to_the_same(tmp_path, overrides):
    overrides = ["runtime=virtual", *overrides]
    write_experiment(tmp_path / "experiment/found.yaml", overrides, "A line.\nAnother.")
    found = plain(compose([f"hydra.searchpath=[{tmp_path}]", "experiment=found"]))
    assert found == plain(compose(overrides))
    assert (
        (tmp_path / "experiment/found.yaml").read_text().startswith("# @package _global_\n# A line.\n# Another.\ndefaults:\n")
    )


@pytest.mark.parametrize("override", ["+a=1", "~timing", "hydra.job.name=x", "++seed=1", "seed"])
def test_what_an_experiment_cannot_say_is_refused(override):
    with pytest.raises(ConfigError, match=r"expected GROUP=OPTION or GROUP\.SETTING=VALUE$"):
        check_overrides(["seed=1", override])


@pytest.mark.parametrize("override", ["cluster=splitwise_hh", "cluster.num_prompt=3", "workload.rate_rps=4"])
def test_what_a_search_finds_itself_is_refused(override):
    with pytest.raises(ConfigError, match=f"^{override}: a search finds this itself"):
        check_overrides([override])
