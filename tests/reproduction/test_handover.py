"""What a hand-over costs a lone request, by hand."""

import numpy as np
import pytest

from emu.build import build, compose
from emu.core.setting import SettingError
from emu.reproduction.handover import APART_S, HandoverClaim, observe_alone
from emu.reproduction.lab import CALIBRATED, COMPATIBLE, Lab, LabEffort

ONE = ["runtime=virtual", "model=bloom_176b", "workload=fixed", "workload.arrivals=constant", "workload.rate_rps=0.01"]
SPLIT = ["cluster=splitwise_hh", "cluster.num_prompt=1", "cluster.num_token=1"]
KV_BYTES = 4_014_080


def alone(*overrides):
    load = ["workload.prompt_tokens=1000", "workload.output_tokens=3", "workload.duration_s=250"]
    return observe_alone([*ONE, *load, *overrides])


def steps_s():
    """The prefill and both decode steps, of the timing itself."""
    machines = build(compose([*ONE, *SPLIT])).run_config.cluster.machines
    timing = machines[0].timing
    return timing.prefill_s((1000,)), timing.decode_s(1, 1001), timing.decode_s(1, 1002)


def test_on_one_machine_there_is_no_hand_over():
    together = alone("cluster=baseline_h100", "cluster.num_machines=1", "runtime.control_latency_s=0")
    prefill_s, first_s, second_s = steps_s()
    assert together["second_token_s"] == pytest.approx([first_s] * 3, abs=1e-9)
    assert together["e2e_s"] == pytest.approx([prefill_s + first_s + second_s] * 3, abs=1e-9)


def test_serialized_it_is_all_bytes_and_the_latency_of_the_link():
    split = alone(*SPLIT, "transfer.layerwise_min_tokens=inf", "runtime.control_latency_s=0")
    _, first_s, _ = steps_s()
    sent_s = 1000 * KV_BYTES / 400e9 + 50e-6
    assert split["second_token_s"] == pytest.approx([first_s + sent_s] * 3, abs=1e-9)


def test_layer_wise_it_is_the_last_layer_and_the_latency_of_the_link():
    split = alone(*SPLIT, "transfer.layerwise_min_tokens=512", "runtime.control_latency_s=0")
    _, first_s, _ = steps_s()
    sent_s = 1000 * KV_BYTES / 70 / 400e9 + 50e-6
    assert split["second_token_s"] == pytest.approx([first_s + sent_s] * 3, abs=1e-9)


def test_control_messages_cost_a_serialized_one_their_way_there_and_back():
    split = alone(*SPLIT, "transfer.layerwise_min_tokens=inf", "runtime.control_latency_s=0.005")
    _, first_s, _ = steps_s()
    assert split["second_token_s"] == pytest.approx([first_s + 1000 * KV_BYTES / 400e9 + 50e-6 + 0.01] * 3, abs=1e-9)


def test_requests_that_meet_are_refused():
    with pytest.raises(SettingError, match=f"requests {APART_S:g} s apart met"):
        alone(*SPLIT, "workload.rate_rps=10", "workload.duration_s=1")


def test_the_claim_tells_the_link_from_the_messages(tmp_path):
    lab = Lab(tmp_path, "bloom_176b", LabEffort(duration_s=6.0))
    finding = HandoverClaim("layer-wise", "§VI-A", "").measure(lab)
    values = {figure.what: figure.values for figure in finding.figures}
    for hardware in ("DGX-H100", "DGX-A100"):
        for plan in ("layer-wise", "serialized"):
            link = values[f"second token, {plan}, {hardware}, link alone"][CALIBRATED]
            messages = values[f"second token, {plan}, {hardware}, with control messages of 5 ms"][CALIBRATED]
            assert 0.0 < link < messages
        serialized = values[f"second token, serialized, {hardware}, link alone"]
        assert serialized[CALIBRATED] > 10 * values[f"second token, layer-wise, {hardware}, link alone"][CALIBRATED]
        assert serialized[COMPATIBLE] > 0.0
    papers = [figure.paper for figure in finding.figures if figure.paper is not None]
    assert sorted(papers) == sorted([0.165, 0.008, 0.64, 0.03] * 2)
    assert np.isfinite([value for by_mode in values.values() for value in by_mode.values() if value is not None]).all()
