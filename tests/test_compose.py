"""Configurations are Hydra's own, only faster."""

import hydra
import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from emu.compose import CONF_DIR, CONFIG_NAME, compose, compose_sweep, quoted


def of_hydra(overrides):
    with hydra.initialize_config_dir(str(CONF_DIR), version_base=None):
        config = hydra.compose(CONFIG_NAME, overrides, return_hydra_config=True)
    choices = OmegaConf.to_container(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return config, choices


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["runtime=virtual", "seed=7", "workload.rate_rps=2.5"],
        ["workload.rate_rps=3", "workload=azure_code"],  # a value and then the group that it is in
        ["cluster=baseline_h100", "cluster.num_machines=3", "placement=jsq"],
        ["hardware@cluster.token_hardware=dgx_a100", "cluster.token_hardware.nic_bytes_per_s=1e9"],
        ["+workload.extra=1", "++seed=3", "~metrics.warmup_s"],
        ["workload=trace", "workload.path='a b,c'", "faults=[{machine: d0, at_s: 1}]"],
        ["metrics.warmup_s=${seed}"],
    ],
)
def test_the_same_as_of_hydra(overrides):
    config, choices = of_hydra(overrides)
    composed = compose(overrides)
    assert composed.config == config
    assert OmegaConf.to_yaml(composed.config) == OmegaConf.to_yaml(config)
    assert composed.choices == choices
    assert OmegaConf.is_struct(composed.config)


def test_what_was_composed_is_ones_own():
    compose(["seed=1"]).config.workload.rate_rps = 99
    assert compose(["seed=1"]).config.workload.rate_rps == 8


@pytest.mark.parametrize("overrides", [["placement=best"], ["no.such=1"], ["seed=1,2"], ["seed"], ["~nothing"], ["+seed=1"]])
def test_the_same_mistakes(overrides):
    with pytest.raises((HydraException, OmegaConfBaseException)) as of_theirs:
        of_hydra(overrides)
    with pytest.raises(type(of_theirs.value)) as of_ours:
        compose(overrides)
    assert str(of_ours.value) == str(of_theirs.value)


def test_the_jobs_of_a_sweep():
    node, jobs = compose_sweep(["runtime=virtual", "hydra.sweep.dir=there", "seed=1,2", "placement=jsq,random"])
    assert [[override.input_line for override in job] for job in jobs] == [
        ["runtime=virtual", f"seed={seed}", f"placement={policy}"] for seed in (1, 2) for policy in ("jsq", "random")
    ]
    assert (list(node), node.hydra.sweep.dir) == (["hydra"], "there")


def test_a_sweep_kept_in_a_file(tmp_path):
    (tmp_path / "experiment").mkdir()
    experiment = "# @package _global_\nhydra: {sweeper: {params: {seed: 'range(2)', workload.rate_rps: '4,8'}}}\n"
    (tmp_path / "experiment/loads.yaml").write_text(experiment)
    _, jobs = compose_sweep([f"hydra.searchpath=[file://{tmp_path}]", "+experiment=loads", "seed=5"])
    assert [[override.input_line for override in job] for job in jobs] == [
        ["seed=5", f"workload.rate_rps={rate}", "+experiment=loads"] for rate in (4, 8)
    ]


@pytest.mark.parametrize(
    ("override", "hydras"),
    [
        ("workload.path=~/trace.csv", "workload.path='~/trace.csv'"),
        ("workload.path=/tmp/Überlast.csv", "workload.path='/tmp/Überlast.csv'"),
        ("workload.path=a&b #1!.csv", "workload.path='a&b #1!.csv'"),
        ("workload.path=${hydra:job.name}/Ü:1", "workload.path='${hydra:job.name}/Ü:1'"),
        ("workload.path=C:\\Ü\\", "workload.path='C:\\Ü\\\\'"),
        ("workload.path=Ü\\,1", "workload.path='Ü,1'"),
        ("workload.path=Ü.csv,Ä.csv", "workload.path='Ü.csv','Ä.csv'"),
        ("execution.machines=[Ü,p1]", "execution.machines=['Ü',p1]"),
        ("faults=[{machine: Ü, at_s: 1}]", "faults=[{machine:'Ü', at_s: 1}]"),
        ("hydra.run.dir=~/Ü", "hydra.run.dir='/home/me/Ü'"),
        # As Hydra takes it already.
        ("workload.path='~/Ü'", "workload.path='~/Ü'"),
        ("faults=[{machine: p0, at_s: 1}]", "faults=[{machine: p0, at_s: 1}]"),
        ("~seed", "~seed"),
    ],
)
def test_text_that_hydra_takes_in_quotes_only_is_quoted(monkeypatch, override, hydras):
    monkeypatch.setenv("HOME", "/home/me")
    assert quoted(override) == hydras


def test_a_path_of_any_language_is_what_was_typed():
    name = "~/Überlast &#1!ü漢字.csv"
    assert compose(["workload=trace", f"workload.path={name}"]).config.workload.path == name
    _, jobs = compose_sweep(["workload=trace", f"workload.path={name},b.csv"])
    assert [job[-1].value() for job in jobs] == [name, "b.csv"]
