import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from emu.workload.workload import Workload, WorkloadError

CONF_DIR = Path(__file__).parents[2] / "conf" / "workload"


def make(arrival_s=(0.0, 0.5, 4.0), prompt_tokens=(10, 20, 30), output_tokens=(1, 2, 3)) -> Workload:
    return Workload("w", np.array(arrival_s, float), np.array(prompt_tokens, np.int64), np.array(output_tokens, np.int64))


def test_derived_figures():
    workload = make()
    assert len(workload) == workload.num_requests == 3
    assert (workload.total_prompt_tokens, workload.total_output_tokens) == (60, 6)
    assert (workload.arrival_span_s, workload.mean_rate_rps, workload.prompt_tokens_per_s) == (4.0, 0.75, 15.0)


def test_one_burst_has_a_finite_rate():
    assert make(arrival_s=(0.0, 0.0, 0.0)).mean_rate_rps == 3.0


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (
            dict(arrival_s=(0, 2, 1)),
            "workload w: request 2: arrival_s=1.0; expected no earlier than the request before it",
        ),
        (dict(arrival_s=(-1, 2, 3)), "workload w: request 0: arrival_s=-1.0; expected a number of seconds >= 0"),
        (dict(arrival_s=(0, 2, np.inf)), "workload w: request 2: arrival_s=inf; expected a number of seconds >= 0"),
        (dict(arrival_s=(0, np.nan, 3)), "workload w: request 1: arrival_s=nan; expected a number of seconds >= 0"),
        (dict(prompt_tokens=(1, 0, 1)), "workload w: request 1: prompt_tokens=0; expected from 1 to 2147483647"),
        (
            dict(output_tokens=(1, 1, 2**31)),
            "workload w: request 2: output_tokens=2147483648; expected from 1 to 2147483647",
        ),
        (dict(output_tokens=(1, 1)), "workload w: output_tokens must be an array of int64, one entry a request"),
        (dict(arrival_s=(), prompt_tokens=(), output_tokens=()), "workload w: no requests; expected at least one"),
    ],
)
def test_what_cannot_be_run_is_refused(columns, text):
    with pytest.raises(WorkloadError, match=f"^{re.escape(text)}$"):
        make(**columns)


def with_ids(*prompt_ids):
    columns = np.zeros(2), np.array([3, 1]), np.ones(2, np.int64)
    return Workload("w", *columns, prompt_ids=tuple(np.array(ids, np.int32) for ids in prompt_ids))


def test_prompts_come_with_the_lengths_they_have():
    assert with_ids([5, 0, 2**31 - 1], [7]).total_prompt_tokens == 4


@pytest.mark.parametrize(
    ("prompt_ids", "text"),
    [
        (([1, 2, 3],), "prompt_ids must be an array of int32 for each request"),
        (([1, 2, 3], [1, 2]), "request 1: 2 prompt_ids; expected prompt_tokens=1 of them"),
        (([1, 2, 3], []), "request 1: 0 prompt_ids; expected prompt_tokens=1 of them"),
        (([[1, 2, 3]], [1]), "request 0: 3 prompt_ids; expected prompt_tokens=3 of them"),
        (([1, 2, 3], [-1]), "request 1: prompt id -1; expected ids >= 0"),
    ],
)
def test_prompts_that_cannot_be_are_refused(prompt_ids, text):
    with pytest.raises(WorkloadError, match=f"^workload w: {re.escape(text)}$"):
        with_ids(*prompt_ids)


def test_prompts_of_another_type_are_refused():
    tokens = np.ones(2, np.int64)
    for ids in (np.ones(1, np.int64), [1]):
        with pytest.raises(WorkloadError, match="prompt_ids must be an array of int32 for each request"):
            Workload("w", np.zeros(2), tokens, tokens, prompt_ids=(ids, ids))


def test_integers_are_not_times_and_lists_are_not_arrays():
    tokens = np.ones(2, np.int64)
    with pytest.raises(WorkloadError, match="arrival_s must be an array of float64"):
        Workload("w", np.zeros(2, np.int64), tokens, tokens)
    with pytest.raises(WorkloadError, match="prompt_tokens must be an array of int64"):
        Workload("w", np.zeros(2), [1, 1], tokens)


@pytest.mark.parametrize("name", ["azure_conv", "azure_code", "fixed"])
def test_configuration_builds_its_workload(name):
    workload = instantiate(OmegaConf.load(CONF_DIR / f"{name}.yaml")).build(seed=0)
    assert workload.name == name
    assert 180 < len(workload) < 300  # 8 requests/s for 30 s
    assert workload.arrival_s[-1] < 30


def test_trace_configuration_demands_only_the_path(tmp_path):
    config = OmegaConf.load(CONF_DIR / "trace.yaml")
    assert OmegaConf.missing_keys(config) == {"path"}
    (tmp_path / "t.csv").write_text("arrival_timestamp,prompt_size,token_size\n59,7,3\n60,7,3\n")
    assert len(instantiate(config, path=str(tmp_path / "t.csv")).build(seed=0)) == 2


def test_importing_every_source_needs_numpy_alone():
    sources = "emu.workload.empirical, emu.workload.fixed, emu.workload.trace"
    heavy = "{'pandas', 'pyarrow', 'ray', 'hydra', 'omegaconf', 'torch', 'tokenizers'}"
    program = f"import sys, {sources}; print({heavy} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=CONF_DIR.parents[1])
    assert (result.stdout, result.stderr) == ("set()\n", "")


def test_to_the_end_of_a_trace_can_be_said_on_the_command_line(tmp_path):
    (tmp_path / "t.csv").write_text("arrival_timestamp,prompt_size,token_size\n59,7,3\n90,7,3\n")
    with initialize_config_dir(str(CONF_DIR.parent), version_base="1.3"):
        overrides = ["+workload=trace", f"workload.path={tmp_path / 't.csv'}", "workload.duration_s=inf"]
        assert len(instantiate(compose(overrides=overrides).workload).build(seed=0)) == 2
