"""Configurations and what they become; each wrong one is one clear line."""

import re

import pytest

from emu.build import build, compose
from emu.compose import CONF_DIR
from emu.config_error import ConfigError, explain

VIRTUAL = "runtime=virtual"


def plan_of(*overrides):
    return build(compose([VIRTUAL, *overrides]))


def cluster_of(*overrides):
    return plan_of(*overrides).run_config.cluster


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["foo=1"], "foo: no such setting; there are model, timing, workload, prediction, machine, placement, batching, "),
        (["workload.foo=1"], "workload.foo: no such setting; workload has lengths, rate_rps, duration_s, arrivals, "),
        (["+workload.foo=1"], "workload.foo: no such setting; workload has lengths, rate_rps, duration_s, arrivals, "),
        (
            ["cluster=baseline_h100", "cluster.num_prompt=2"],
            "cluster.num_prompt: no such setting; cluster has hardware, num_machines",
        ),
        (
            ["placement=best"],
            "placement=best: no such option; expected one of direct_decode, jsq, least_kv, power_of_two, random, round_robin, "
            "splitwise, splitwise_sim, token_jsq",
        ),
        (["prediction='${nowhere}'"], "prediction='${nowhere}': expected one of noisy, none"),
        (["execution='../..'"], "execution='../..': expected one of emulated, torch"),
        (["faults={a: 1}"], "faults={a: 1}: cannot take the place of what is there; expected the same kind"),
        (["cluster.token_hardware.name=''"], "cluster.token_hardware.name=: expected a name that is not blank"),
        (["model.name=' '"], "model.name= : expected a name that is not blank"),
        (["cluster=mine"], "cluster=mine: no such option; expected one of baseline_a100, baseline_h100, heterogeneous, "),
        (
            ["hardware=dgx_a100"],
            "Could not override 'hardware'. Did you mean to override one of hardware@cluster.prompt_hardware, ",
        ),
        (["seed"], "seed: expected KEY=VALUE, with quotes around a value that has spaces or any of =,:()[]{}"),
        (["seed==1"], "seed==1: the value has =; expected KEY=VALUE, with quotes around a value that has spaces or any of "),
        (["seed=${nope}"], "seed: Interpolation key 'nope' not found"),
        (["seed=-1"], "seed=-1: expected a whole number from 0 to 2147483647"),
        (["seed=1.5"], "seed=1.5: expected a whole number"),
        (["seed=true"], "seed=True: expected a whole number"),
        (["require_valid=maybe"], "require_valid=maybe: expected true or false"),
        (["~seed"], "seed is required: set seed=..."),
        (["~cluster.num_prompt"], "cluster.num_prompt is required: set cluster.num_prompt=..."),
        (["workload=trace"], "workload.path is required: set workload.path=..."),
        (
            ["workload=trace", "workload.rate_rps=5"],
            "workload.rate_rps: no such setting with this workload: a trace brings its own arrival times; "
            "play it faster or slower with workload.rate_scale",
        ),
        (
            ["workload=trace", "workload.path=x", "+workload.cv=5"],
            "workload.cv: no such setting with this workload: a trace brings its own arrival times; "
            "play it faster or slower with workload.rate_scale",
        ),
        (["workload.rate_rps=-1"], "workload.rate_rps=-1: expected a number > 0"),
        (["workload.rate_rps=fast"], "workload.rate_rps=fast: expected a number"),
        (["workload.rate_rps={a: 1}"], "workload.rate_rps={'a': 1}: expected a number"),
        (["workload.arrivals=weekly"], "workload.arrivals=weekly: expected one of poisson, gamma, constant"),
        (["cluster.num_prompt=0"], "cluster.num_prompt=0: expected a whole number from 1 to 10000"),
        (["cluster.num_token=two"], "cluster.num_token=two: expected a whole number"),
        (["placement=splitwise_sim", "machine=paged"], "placement=splitwise_sim needs machine=splitwise_sim"),
        (["machine.watermark=2"], "machine.watermark=2: expected a number from 0 to 1"),
        (["cluster.prompt_hardware=3"], "cluster.prompt_hardware=3: expected an option of this group, or settings below it"),
        (["cluster.prompt_hardware.nic_bytes_per_s=0"], "cluster.prompt_hardware.nic_bytes_per_s=0: expected a number > 0"),
        (
            ["model=bloom_176b", "cluster.prompt_hardware.memory_fraction=0.5"],
            "model bloom_176b does not fit hardware dgx_h100: weights 352.5 GB + activation reserve 16.0 GB, "
            "usable memory 343.6 GB (memory_fraction=0.5 of num_gpus=8 x hbm_bytes_per_gpu=85,899,345,920)",
        ),
        (
            ["hardware@cluster.token_hardware=dgx_a100", "timing.fits.llama2_70b.dgx_a100=null"],
            "no timing for model llama2_70b on ",
        ),
        (["batching.max_batch_tokens=0"], "batching.max_batch_tokens=0: expected a whole number from 1 to 2147483647"),
        (["placement.max_kv_fraction=1.5"], "placement.max_kv_fraction=1.5: expected a number from 0 to 1"),
        (["runtime.control_latency_s=-1"], "runtime.control_latency_s=-1: expected a number >= 0"),
        (["runtime.dilation=2"], "runtime.dilation: no such setting; runtime has control_latency_s, "),
        (["transfer.payload_scale=2"], "transfer.payload_scale=2: expected auto or a number from 0 to 1"),
        (["transfer.layers_per_piece=0"], "transfer.layers_per_piece=0: expected a whole number from 1 to 2147483647"),
        (["transfer.layers_per_piece=0.5"], "transfer.layers_per_piece=0.5: expected a whole number"),
        (
            ["transfer.layers_per_piece=3"],
            "transfer.layers_per_piece=3: expected a divisor of llama2_70b's 80 layers: 1, 2, 4, 5, 8, 10, 16, 20, 40, 80",
        ),
        (
            ["model=bloom_176b", "transfer.layers_per_piece=8"],
            "transfer.layers_per_piece=8: expected a divisor of bloom_176b's 70 layers: 1, 2, 5, 7, 10, 14, 35, 70",
        ),
        (["metrics.max_drain_s=-1"], "metrics.max_drain_s=-1: expected a number >= 0"),
        (
            ["metrics.warmup_s=10", "workload=fixed", "workload.arrivals=constant", "workload.duration_s=5"],
            "metrics.warmup_s=10: no request would count; expected at most the last one's arrival, ",
        ),
        (["results.events=often"], "results.events=often: expected auto, true or false"),
        (["verdict.late_p99_s=0"], "verdict.late_p99_s=0: expected a number > 0"),
        (["faults=soon"], "faults=soon: expected a list"),
        (["machine=splitwise_sim", "machine.weight_bytes=3"], "machine.weight_bytes=3: expected an option of this group, "),
        (["machine=splitwise_sim", "+machine.weight_bytes.m=x"], "machine.weight_bytes.m=x: expected a whole number"),
        (["power=phase", "+power.fits.m.prefill_tokens=1"], "power.fits.m.prefill_tokens is required: a list of numbers"),
        (
            ["placement=direct_decode", "prediction=noisy", "placement@placement.base=splitwise_sim"],
            "placement.base=splitwise_sim: expected a placement for machine=paged",
        ),
        (["timing.fits=3"], "timing.fits=3: expected an option of this group, or settings below it"),
        (["+timing.fits.m.h.decode_s=[a]"], "timing.fits.m.h.decode_s=['a']: expected a number or a list of numbers"),
        (["~timing.fits.llama2_70b.dgx_h100.decode_s"], "timing.fits.llama2_70b.dgx_h100.decode_s is missing; expected "),
        (["timing.fits.llama2_70b.dgx_h100.decode_s=[]"], "timing.fits.llama2_70b.dgx_h100.decode_s=[]: 0 numbers; expected "),
        (["timing=splitwise_sim", "timing.mixed_factor=-1"], "timing.mixed_factor=-1: expected a number from 0.001 to 1000"),
        (["faults=[{machine: x9, at_s: 1}]"], "faults[0].machine=x9: no such machine; there are p0, p1, p2, p3, d0, d1"),
        (
            ["faults=[{machine: [p0], at_s: 1}]"],
            "faults[0].machine=['p0']: no such machine; there are p0, p1, p2, p3, d0, d1",
        ),
        (["faults=[{machine: d0, at_s: never}]"], "faults[0].at_s=never: expected a number of seconds >= 0"),
        # The key is the one that was typed, wherever the value is checked.
        (["slo.reference.num_gpus=-1"], "slo.reference.num_gpus=-1: expected a number > 0"),
        (
            ["placement=direct_decode", "prediction=noisy", "placement.base.max_kv_fraction=5"],
            "placement.base.max_kv_fraction=5: expected a number from 0 to 1",
        ),
        (
            ["cluster=heterogeneous", "cluster.hardware.dgx_a100.memory_fraction=3"],
            "cluster.hardware.dgx_a100.memory_fraction=3: expected a number from 0 to 1",
        ),
        (
            ["hardware@cluster.prompt_hardware=best"],
            "hardware@cluster.prompt_hardware=best: no such option; expected one of cpu_core, dgx_a100, ",
        ),
        (["workload.rate_rps=\x07"], "workload.rate_rps=\\x07: the value has \\x07; expected KEY=VALUE, with quotes around a "),
        (["workload.path=/a=b"], "workload.path=/a=b: the value has =; expected KEY=VALUE, with quotes around a "),
        (["model.num_kv_heads=3"], "model.num_kv_heads=3: expected a divisor of model.num_heads=64"),
        (["seed=${oc.env:HOME}"], "seed: ${oc.env:...} is not allowed: results would show the environment; expected the "),
        (["hardware@cluster.prompt_hardware=[x]"], "hardware@cluster.prompt_hardware=[x]: expected one of cpu_core, "),
        (["experiment=[[x]]"], "experiment=[[x]]: expected one of, or a list of, iso_cost_code_baseline_a100, "),
        (
            ["experiment=[mixed,splitwise_sim]"],
            "experiment=[mixed,splitwise_sim]: mixed and splitwise_sim exclude each other: "
            "timing=host against splitwise_sim, placement=random against splitwise_sim; "
            "expected one of them, or each of these options chosen on the command line",
        ),
        (["experiment=[validate,mixed]"], "experiment=[validate,mixed]: validate and mixed exclude each other: "),
        *(
            ([f"model={value}"], f"model={value}: expected one of bloom_176b, checkpoint, llama2_70b, llama3_8b, llama_30m")
            for value in ("[1]", "[null]", "[llama2_70b]", "{a: b}", "null", "5", "true", "''")
        ),
        (["model=" + "x" * 5000], f"model={'x' * 274}...{'x' * 16}: expected one of bloom_176b, "),
        (
            ["workload._target_=emu.workload.fixed.Such"],
            "workload._target_=emu.workload.fixed.Such: expected one of emu.workload.empirical.Empirical, "
            "emu.workload.fixed.Fixed, emu.workload.trace.Trace",
        ),
    ],
)
def test_wrong_input_is_one_line(overrides, line):
    with pytest.raises(ConfigError) as caught:
        plan_of(*overrides)
    text = explain(caught.value)
    assert text.isprintable()
    assert text.startswith(line) if line.endswith(" ") else text == line


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "empty file; expected a trace"),
        ("arrival_timestamp,prompt_size,token_size\n", "a header and no rows; expected at least one request"),
        ("when,what\n", "line 1: 'when,what'; expected "),
        ("arrival_timestamp,prompt_size,token_size\n0,5,5\n1,x,5\n", "line 3: '1,x,5'; expected "),
    ],
)
def test_a_wrong_trace_is_one_line(tmp_path, content, problem):
    path = tmp_path / "trace.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match=rf"^workload\.path={re.escape(str(path))}(, |: ){re.escape(problem)}"):
        plan_of("workload=trace", f"workload.path={path}")


@pytest.mark.parametrize(
    ("overrides", "placement", "batching"),
    [
        ([], "Splitwise", "Fcfs"),
        (["cluster=splitwise_ha"], "Splitwise", "Fcfs"),
        (["cluster=baseline_a100"], "TokenJsq", "MixedContinuous"),
        (["cluster=baseline_h100", "placement=jsq"], "Jsq", "MixedContinuous"),
        (["placement=random", "cluster=baseline_h100", "batching=fcfs"], "Random", "Fcfs"),
        (["batching=mixed_continuous"], "Splitwise", "MixedContinuous"),
    ],
)
def test_a_cluster_selects_its_policies_unless_told_otherwise(overrides, placement, batching):
    cluster = cluster_of(*overrides)
    assert (type(cluster.placement).__name__, type(cluster.batching).__name__) == (placement, batching)


@pytest.mark.parametrize(
    ("design", "machines"),
    [
        ("splitwise_hh", "p0 p1 p2 p3 dgx_h100, d0 d1 dgx_h100"),
        ("splitwise_aa", "p0 p1 p2 p3 dgx_a100, d0 d1 dgx_a100"),
        ("splitwise_ha", "p0 p1 p2 p3 dgx_h100, d0 d1 dgx_a100"),
        ("splitwise_hhcap", "p0 p1 p2 p3 dgx_h100, d0 d1 dgx_h100_capped"),
        ("baseline_a100", "m0 m1 m2 m3 m4 m5 dgx_a100"),
        ("baseline_h100", "m0 m1 m2 m3 m4 m5 dgx_h100"),
    ],
)
def test_cluster_designs(design, machines):
    specs = cluster_of(f"cluster={design}").machines
    assert [spec.index for spec in specs] == list(range(6))
    expected = [(name, words[-1]) for words in map(str.split, machines.split(", ")) for name in words[:-1]]
    assert [(spec.name, spec.hardware.name) for spec in specs] == expected
    roles = {"p": "prefill", "d": "decode", "m": "mixed"}
    assert all(spec.role == roles[spec.name[0]] for spec in specs)


def test_hardware_is_set_for_each_role():
    specs = cluster_of("cluster.num_prompt=1", "cluster.num_token=1", "cluster.token_hardware.nic_bytes_per_s=1e9").machines
    assert [spec.hardware.nic_bytes_per_s for spec in specs] == [400e9, 1e9]
    # 90 % of 8 x 80 GiB, less 137.953 GB of weights and 16 GB of activations, in blocks of 16 x 327,680 bytes.
    assert [spec.num_kv_blocks for spec in specs] == [88_600, 88_600]


OPTIONS = [f"{path.parent.name}={path.stem}" for path in sorted(CONF_DIR.glob("*/*.yaml")) if path.parent.name != "hardware"]
# What needs a file of the user's, or measures this host.
NOT_BY_THEMSELVES = {"workload=trace", "runtime=ray", "model=checkpoint", "timing=host"}
CONSTANT = ("timing=constant", "runtime=ray")
NEEDS = {
    "placement=direct_decode": ("prediction=noisy",),
    "execution=torch": ("experiment=validate", *CONSTANT),
    "timing=llama_30m_cpu": ("experiment=validate",),
    "experiment=mixed": CONSTANT,
    "experiment=validate": CONSTANT,
    "experiment=validate_disaggregated": CONSTANT,
    "model=llama_30m": CONSTANT,
    "model=llama3_8b": CONSTANT,
}


@pytest.mark.parametrize("option", sorted({*OPTIONS} - NOT_BY_THEMSELVES))
def test_every_option_builds(option):
    assert plan_of(option, *NEEDS.get(option, ())).num_requests > 0


# --- requests that no machine can hold --------------------------------------------------------------------------------

HUGE = ["runtime=virtual", "workload=trace", "workload.duration_s=60"]


@pytest.fixture
def huge_prompts(tmp_path):
    """Three requests, of which the first and the last fit no machine."""
    path = tmp_path / "trace.csv"
    path.write_text("arrival_timestamp,prompt_size,token_size\n0,2000000,5\n0.5,1000,5\n1,900000,5\n")
    return [*HUGE, f"workload.path={path}"]


def test_requests_that_no_machine_can_hold_are_refused(huge_prompts):
    with pytest.raises(ConfigError) as refused:
        build(compose(huge_prompts))
    assert str(refused.value) == (
        "workload: 2 of 3 requests fit no machine of their phase, first request 0 with 2,000,000 prompt and 5 output tokens; "
        "expected prompts of at most 708,784 tokens, and 1,417,601 with their outputs; "
        "workload.skip_impossible=true goes on without them"
    )


def test_or_left_out(huge_prompts):
    plan = build(compose([*huge_prompts, "workload.skip_impossible=true"]))
    workload = plan.run_config.workload
    assert (workload.prompt_tokens.tolist(), workload.arrival_s.tolist(), workload.num_skipped) == ([1000], [0.5], 2)


def test_a_workload_of_such_requests_alone_cannot_go_on_without_them():
    alone = ["runtime=virtual", "workload=fixed", "workload.prompt_tokens=100000000", "workload.skip_impossible=true"]
    with pytest.raises(ConfigError, match="233 of 233 requests fit no machine of their phase"):
        build(compose(alone))
