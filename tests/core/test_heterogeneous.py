"""Pools of unlike machines: how they are described, and what placement policies make of them."""

import numpy as np
import pytest

from emu.build import build, compose
from emu.config_error import ConfigError


def plan_of(*overrides):
    return build(compose(["runtime=virtual", "cluster=heterogeneous", *overrides]))


def machines_of(groups):
    return plan_of(f"cluster.machines={groups}").run_config.cluster.machines


def test_machines_are_numbered_through_each_role():
    machines = machines_of(
        "[{role: prefill, hardware: dgx_h100, count: 2}, {role: decode, hardware: dgx_a100, count: 1}, "
        "{role: prefill, hardware: dgx_a100, count: 1}, {role: mixed, hardware: dgx_h100_capped, count: 1}]"
    )
    described = [(machine.index, machine.name, machine.role, machine.hardware.name) for machine in machines]
    assert described == [
        (0, "p0", "prefill", "dgx_h100"),
        (1, "p1", "prefill", "dgx_h100"),
        (2, "d0", "decode", "dgx_a100"),
        (3, "p2", "prefill", "dgx_a100"),
        (4, "m0", "mixed", "dgx_h100_capped"),
    ]


def test_each_machine_has_the_timing_of_its_hardware():
    p0, p1, m0 = machines_of(
        "[{role: prefill, hardware: dgx_h100, count: 1}, {role: prefill, hardware: dgx_a100, count: 1}, "
        "{role: mixed, hardware: dgx_a100, count: 1}]"
    )
    assert p0.timing.prefill_s([1024]) < 0.6 * p1.timing.prefill_s([1024])
    assert p1.timing is m0.timing


def test_settings_of_one_kind_of_hardware_hold_for_all_its_machines():
    plan = plan_of("cluster.hardware.dgx_a100.nic_bytes_per_s=1e9")
    machines = plan.run_config.cluster.machines
    assert [machine.hardware.nic_bytes_per_s for machine in machines] == [400e9, 400e9, 1e9, 1e9, 1e9, 1e9]


@pytest.mark.parametrize(
    ("groups", "line"),
    [
        ("[]", "cluster.machines: no machine to prefill; expected one of role prefill or mixed"),
        (
            "[{role: prefill, hardware: dgx_h100, count: 1}]",
            "cluster.machines: no machine to decode; expected one of role decode or mixed",
        ),
        ("3", "cluster.machines=3: expected a list"),
        ("[p0]", "cluster.machines[0]=p0: expected {role: ROLE, hardware: NAME, count: NUMBER}"),
        (
            "[{role: mixed, hardware: dgx_h100}]",
            "cluster.machines[0]={'role': 'mixed', 'hardware': 'dgx_h100'}: "
            "expected {role: ROLE, hardware: NAME, count: NUMBER}",
        ),
        (
            "[{role: prompt, hardware: dgx_h100, count: 1}]",
            "cluster.machines[0].role=prompt: expected one of prefill, decode, mixed",
        ),
        (
            "[{role: mixed, hardware: dgx_h200, count: 1}]",
            "cluster.machines[0].hardware=dgx_h200: expected one of dgx_a100, dgx_h100, dgx_h100_capped",
        ),
        (
            "[{role: mixed, hardware: dgx_h100, count: 0}]",
            "cluster.machines[0].count=0: expected a whole number from 1 to 10000",
        ),
        (
            "[{role: mixed, hardware: dgx_h100, count: 6000}, {role: mixed, hardware: dgx_a100, count: 6000}]",
            "the sum of cluster.machines' counts=12000: expected a whole number from 1 to 10000",
        ),
    ],
)
def test_a_wrong_group_is_one_line(groups, line):
    with pytest.raises(ConfigError) as caught:
        machines_of(groups)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "+cluster.hardware.dgx_h100.foo=1",
            "cluster.hardware.dgx_h100.foo: no such setting; cluster.hardware.dgx_h100 has name, ",
        ),
        ("~cluster.hardware.dgx_h100.num_gpus", "cluster.hardware.dgx_h100.num_gpus is required: set "),
        ("cluster.hardware.dgx_h100.num_gpus=a", "cluster.hardware.dgx_h100.num_gpus=a: expected a whole number"),
        ("cluster.hardware.dgx_h100=3", "cluster.hardware.dgx_h100=3: expected an option of this group, or settings below it"),
        ("cluster.hardware=3", "cluster.hardware=3: expected an option of this group, or settings below it"),
        ("+cluster.hardware.box={a: 1}", "cluster.hardware.box={'a': 1}: expected an option of hardware"),
    ],
)
def test_wrong_hardware_is_one_line(override, line):
    with pytest.raises(ConfigError) as caught:
        plan_of(override)
    assert str(caught.value).startswith(line)


def test_hardware_of_ones_own():
    own = ("+hardware@cluster.hardware.box=dgx_a100", "cluster.hardware.box.nic_bytes_per_s=1e9")
    plan = plan_of(*own, "cluster.machines=[{role: mixed, hardware: box, count: 2}]")
    assert [machine.hardware.nic_bytes_per_s for machine in plan.run_config.cluster.machines] == [1e9, 1e9]


@pytest.mark.parametrize(("placement", "least", "most"), [("token_jsq", 1.3, 4.0), ("round_robin", 0.99, 1.01)])
def test_slower_machines_get_less_where_queues_are_compared(tmp_path, placement, least, most):
    """A DGX-H100 prefills 1,000 tokens in half the time of a DGX-A100; a policy that looks at queues finds its own shorter."""
    plan = plan_of(
        f"placement={placement}",
        "workload=fixed",
        "workload.output_tokens=2",
        "workload.rate_rps=30",
        "workload.duration_s=20",
    )
    record = plan.run(run_dir=tmp_path, log_events=False)
    served = np.bincount(record.recorder.columns().requests.prefill_on, minlength=6)
    fast, slow = served[:2].sum(), served[2:4].sum()
    assert least < fast / slow < most
    assert served[4:].sum() == 0
