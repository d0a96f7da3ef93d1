"""Which machines execute, and what is refused before any actor starts: a line with the value, the place, what is allowed."""

from dataclasses import replace

import psutil
import pytest

from emu.build import build, compose
from emu.config_error import ConfigError
from emu.execution.settings import EmulatedExecution, TorchExecution

pytest.importorskip("torch")

REAL = (
    "execution=torch",
    "model=llama_30m",
    "timing=constant",
    "hardware@cluster.prompt_hardware=cpu_core",
    "hardware@cluster.token_hardware=cpu_core",
    "workload=fixed",
    "cluster.num_prompt=2",
)


def rehearsal_of(*overrides, tmp_path="."):
    return replace(build(compose([*REAL, *overrides])).run_config, run_dir=tmp_path, log_events=False)


def test_all_machines_execute_or_those_named():
    for machines, indices in (("all", (0, 1, 2, 3)), ("[p1,d0]", (1, 2))):
        run_config = rehearsal_of(f"execution.machines={machines}")
        assert isinstance(run_config.execution, TorchExecution)
        assert run_config.execution.real_machines(run_config.cluster.machines) == indices
    emulated = rehearsal_of("execution=emulated")
    assert isinstance(emulated.execution, EmulatedExecution)
    assert emulated.execution.real_machines(emulated.cluster.machines) == ()


def test_what_a_real_machine_declares(monkeypatch):
    """Room for its process, its weights and its KV cache; on a GPU the share of it that it takes."""
    run_config = rehearsal_of()
    cluster, spec = run_config.cluster, run_config.cluster.machines[0]
    kv_bytes = spec.num_kv_blocks * 16 * cluster.model.kv_bytes_per_token
    assert run_config.execution.needs(cluster, spec)["memory"] > cluster.model.weight_bytes + kv_bytes
    monkeypatch.setattr(TorchExecution, "check_host", lambda execution, cluster: None)
    on_gpu = rehearsal_of("execution.device=cuda", "execution.num_gpus=0.5", "machine.block_tokens=256")
    assert on_gpu.execution.needs(cluster, spec)["num_gpus"] == 0.5


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "model=llama2_70b hardware@cluster.prompt_hardware=dgx_h100 hardware@cluster.token_hardware=dgx_h100",
            "execution=torch: model llama2_70b is known by its timing only; expected one that can be executed, such as "
            "model=llama_30m, model=llama3_8b or model=checkpoint",
        ),
        ("runtime=virtual", "execution=torch needs runtime=ray, not virtual: a machine that executes takes wall time"),
        (
            "runtime.dilation=2",
            "runtime.dilation=2.0: expected 1 with execution=torch: a machine that executes takes wall time",
        ),
        (
            "runtime.dilation=auto",
            "runtime.dilation=auto: expected 1 with execution=torch: a machine that executes takes wall time",
        ),
        (
            "transfer.payload_scale=0.5",
            "transfer.payload_scale=0.5: expected auto or 1 with execution=torch, which needs all bytes of a KV cache",
        ),
        ("execution.machines=[p0,p7]", "execution.machines=p7: expected one of p0, p1, d0, d1"),
        (
            "execution.machines=[]",
            "execution.machines=[]: expected all or names; execution=emulated has no real machine",
        ),
        ("execution.machines=p0", "execution.machines=p0: expected one of all, [NAME, ...]"),
        (
            "execution.device=cuda",
            "machine.block_tokens=16: expected a multiple of 128 with execution.device=cuda, whose attention reads KV caches "
            "by as many tokens",
        ),
        ("execution.device=tpu", "execution.device=tpu: expected cpu, cuda or cuda:N"),
        ("execution.device=cpu:1", "execution.device=cpu:1: expected cpu, cuda or cuda:N"),
        ("execution.num_threads=0", "execution.num_threads=0: expected a whole number from 1 to 1024"),
        ("execution.num_gpus=0", "execution.num_gpus=0: expected a number > 0"),
        ("execution.output=free", "execution.output=free: expected one of forced, eos"),
        ("execution.temperature=-1", "execution.temperature=-1: expected a number >= 0"),
        ("execution.probe_interval_s=-1", "execution.probe_interval_s=-1: expected a number >= 0"),
        ("execution.top_p=0", "execution.top_p=0: expected a number from 1e-06 to 1"),
        (
            "workload.prompt_tokens=8100",
            "execution=torch: the workload has a request of 8200 tokens, prompt and output; expected at most 8192, the context "
            "of model llama_30m",
        ),
        ("model.dtype=fp8", "model.dtype=fp8: expected one of fp32, fp16, bf16"),
        ("execution.thread=1", None),
    ],
)
def test_what_is_refused(override, line):
    with pytest.raises(ConfigError) as refused:
        rehearsal_of(*override.split())
    text = str(refused.value)
    assert "\n" not in text
    if line is None:
        assert text.startswith("execution.thread: no such setting; execution has machines, device, ")
    else:
        assert text == line


def test_machines_of_the_published_simulator_have_no_blocks():
    with pytest.raises(ConfigError, match="execution=torch: expected machine=paged, for KV caches are kept in blocks"):
        rehearsal_of("machine=splitwise_sim", "placement=splitwise_sim", "+machine.weight_bytes.llama_30m=100000000")


def test_more_memory_than_the_host_has_left():
    had = psutil.virtual_memory().available
    with pytest.raises(ConfigError) as refused:
        rehearsal_of(f"cluster.prompt_hardware.hbm_bytes_per_gpu={had}", "execution.machines=[p0,p1]")
    text = str(refused.value)
    assert text.startswith("execution.machines=p0,p1: llama_30m with its KV caches needs ") and " bytes of memory" in text
    assert "and this host has " in text
