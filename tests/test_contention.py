"""Transfers that share NICs, in whole clusters, against hand-computed times: 1 ms a prompt token, 30 ms a decode step, 5 ms a
message, and a NIC moves a token's KV cache in 1 ms; 2 ms are added once (see `clusters`)."""

from dataclasses import replace

import pytest

from emu.core.timing.constant import ConstantTiming
from tests.clusters import HARDWARE, exactly, make_cluster, simulate


def received_s(run) -> list[float]:
    transfers = run.columns.transfers
    return transfers.received_s[transfers.request_id.argsort()].tolist()


def test_two_prompt_machines_send_to_one_token_machine_at_once():
    requests = [(0.0, 100, 3), (0.0, 100, 3)]
    alone = simulate(make_cluster("p0 p1 d0", contention=False), requests)
    shared = simulate(make_cluster("p0 p1 d0", contention=True), requests)
    # First tokens at 0.105, flows from 0.115. With half of d0's NIC each, 100 tokens take 0.200 instead of 0.100.
    assert received_s(alone) == exactly([0.217, 0.217])
    assert received_s(shared) == exactly([0.317, 0.317])
    # Both KV caches are there at once: d0 starts with one, the other joins at the next boundary.
    assert shared.tokens_s(0) == exactly([0.105, 0.347, 0.377])
    assert shared.tokens_s(1) == exactly([0.105, 0.377, 0.407])


def test_the_rest_of_a_transfer_is_faster_when_the_other_is_through():
    run = simulate(make_cluster("p0 p1 d0", contention=True), [(0.0, 100, 3), (0.0, 80, 4)])
    # Request 1: first token 0.085, its flow from 0.095, alone until 0.115: 20 tokens. Then half: its other 60 take 0.120, to
    # 0.235, + 0.002. Request 0 has moved 60 of its 100 by then; the rest, alone, takes until 0.275.
    assert received_s(run) == exactly([0.277, 0.237])
    # Request 1 decodes from 0.237; request 0 joins at the boundary after 0.277, which is 0.297.
    assert run.tokens_s(1) == exactly([0.085, 0.267, 0.297, 0.327])
    assert run.tokens_s(0) == exactly([0.105, 0.327, 0.357])


def test_prompts_of_one_batch_share_the_nic_of_their_source():
    run = simulate(make_cluster("p0 d0 d1", contention=True), [(0.0, 10, 1), (0.001, 100, 3), (0.002, 60, 3)])
    # The two longer prompts run together from 0.015 to 0.175 and leave for d0 and d1, from 0.185: half of p0's NIC each. The
    # shorter is through after 0.120, the longer has 40 left, alone: until 0.345.
    assert set(run.columns.transfers.destination.tolist()) == {1, 2}
    assert received_s(run) == exactly([0.347, 0.307])


def test_transfers_that_end_together_go_on_in_the_order_of_their_requests():
    run = simulate(make_cluster("p0 d0", contention=True), [(0.1, 10, 1), (0.1, 100, 2), (0.1, 100, 6)])
    # The two longer prompts run together from 0.115 to 0.315 and leave from 0.325 with half of p0's NIC each: through at 0.525.
    # The earlier request decodes first, alone; the other joins at the next boundary.
    earlier_s, later_s = received_s(run)
    assert earlier_s == later_s == exactly(0.527)
    assert run.tokens_s(1) == exactly([0.315, 0.557])
    assert run.tokens_s(2)[:2] == exactly([0.315, 0.587])


def test_a_dead_source_gives_up_its_share():
    run = simulate(make_cluster("p0 p1 d0", contention=True), [(0.0, 100, 2), (0.0, 100, 2)], deaths={"p0": 0.165})
    # Both flows at half from 0.115. The scheduler knows at 0.170 and the network at 0.175: 30 tokens of request 1 have come by
    # then, the other 70, alone, are there at 0.245.
    assert received_s(run)[1] == exactly(0.247)
    # Request 0 again: p1 prefills it from 0.175 to 0.275, its flow is alone from 0.285 to 0.385.
    assert received_s(run)[0] == exactly(0.387)
    assert run.tokens_s(0) == exactly([0.105, 0.417])


@pytest.mark.parametrize("contention", [False, True])
def test_ten_prompt_machines_send_to_one(contention):
    names = " ".join(f"p{index}" for index in range(10))
    run = simulate(make_cluster(f"{names} d0", contention=contention), [(0.0, 100, 2)] * 10)
    assert received_s(run) == exactly([0.115 + (1.0 if contention else 0.1) + 0.002] * 10)


def test_layer_by_layer_alone():
    run = simulate(make_cluster("p0 d0", contention=True, layerwise_min_tokens=1), [(0.0, 100, 2)])
    # Prefill from 0.005 to 0.105, a fifth of the bytes each 0.020: as fast as the NIC takes them. The first fifth is there at
    # 0.025, when the flow has been asked for since 0.015; the last leaves from 0.105 to 0.125.
    assert received_s(run) == exactly([0.127])
    assert run.tokens_s(0) == exactly([0.105, 0.157])


@pytest.mark.parametrize(("layers_per_piece", "last_piece_s"), [(1, 0.05 / 80), (8, 0.05 / 10), (80, 0.05)])
def test_what_is_left_to_send_after_the_prefill_is_one_piece(layers_per_piece, last_piece_s):
    """80 layers on a NIC that moves them in 0.05 s, half of the prefill's time: no piece waits for another, and the last one,
    computed at 0.105, is what the second token waits for, with the link's 0.002."""
    cluster = make_cluster("p0 d0", contention=True, layerwise_min_tokens=1)
    model = replace(cluster.model, num_layers=80)
    hardware = replace(HARDWARE, nic_bytes_per_s=100 * model.kv_bytes_per_token / 0.05)
    machines = tuple(replace(spec, hardware=hardware) for spec in cluster.machines)
    cluster = replace(cluster, model=model, machines=machines, layers_per_piece=layers_per_piece)
    assert cluster.num_pieces == 80 // layers_per_piece
    run = simulate(cluster, [(0.0, 100, 2)])
    assert received_s(run) == exactly([0.105 + last_piece_s + 0.002])
    assert run.tokens_s(0) == exactly([0.105, 0.105 + last_piece_s + 0.002 + 0.03])


def test_layer_by_layer_beside_another():
    run = simulate(make_cluster("p0 p1 d0", contention=True, layerwise_min_tokens=90), [(0.0, 100, 2), (0.0, 45, 2)])
    # Request 0 as above: 35 tokens have left by 0.060, when request 1's flow starts, serialized, as its prefill ended at 0.050.
    # Half each: its 45 tokens take 0.090, to 0.150. Request 0 has fallen behind and has 20 tokens left: until 0.170.
    assert received_s(run) == exactly([0.170 + 0.002, 0.150 + 0.002])


def test_a_dead_destination_gives_up_its_share_of_the_source():
    # As above, the two longer prompts leave p0 at half of its NIC each from 0.185. The destination of the shorter dies at
    # 0.205; the network knows at 0.215, when 15 tokens of each have left. The longer one has all of p0's NIC: 70 more by
    # 0.285. Then the shorter comes again, prefilled by p0 from 0.215 to 0.275, and to the same machine: half each for the
    # last 15, to 0.315.
    cluster = make_cluster("p0 d0 d1", contention=True)
    requests = [(0.0, 10, 1), (0.001, 100, 3), (0.002, 60, 3)]
    run = simulate(cluster, requests)
    dies = cluster.machines[run.columns.requests.decode_on[2]].name
    run = simulate(cluster, requests, deaths={dies: 0.205})
    assert received_s(run) == exactly([0.317, 0.362])


@pytest.mark.parametrize("others", [[], [(0.0, 10, 20)]])  # d0 is idle, or decodes
def test_layer_by_layer_for_a_request_that_ends_with_its_prefill(others):
    timing = ConstantTiming(prefill_s_per_token=0.01, decode_step_s=0.03)
    cluster = make_cluster("p0 d0", timing=timing, contention=True, layerwise_min_tokens=1)
    run = simulate(cluster, [*others, (0.2, 10, 1)])
    # Prefill from 0.205 to 0.305. The last of five layers is at d0 at 0.305 + 0.002 + 0.002, before p0's word, at 0.310, that
    # nothing is to be decoded.
    assert run.tokens_s(len(others)) == exactly([0.305])
    assert run.columns.transfers.request_id.tolist() == list(range(len(others)))
    assert len(run.columns.drops) == 0
