"""What happens when KV blocks run short, against hand-computed times (the figures of `clusters`)."""

from emu.results.columns import FAILED, FINISHED
from tests.clusters import exactly, make_cluster, simulate


def test_a_transfer_waits_for_the_destinations_blocks():
    run = simulate(make_cluster("p0 d0", d0=10), [(0.0, 100, 10), (0.0, 100, 3)])
    # Prefill at p0: 0.005 to 0.105 and on to 0.205. Each needs the blocks of 101 tokens at d0, 7 of 10.
    # Request 0 is pulled at 0.110, is there at 0.110 + 0.005 + 0.102 = 0.217 and decodes 9 steps, to 0.487.
    # Request 1 is offered at 0.210 and waits until then: 0.487 + 0.107 = 0.594.
    transfers = run.columns.transfers
    assert transfers.ready_s == exactly([0.11, 0.21])
    assert transfers.pull_s == exactly([0.11, 0.487])
    assert transfers.received_s == exactly([0.217, 0.594])
    assert run.tokens_s(0)[-1] == exactly(0.487)
    assert run.tokens_s(1) == exactly([0.205, 0.624, 0.654])


def test_an_admission_leaves_the_watermark_free():
    requests = [(0.0, 100, 10), (0.0, 100, 3)]
    # 14 blocks are just enough for both, which then grow by at most 10 tokens, to 110 of 112.
    assert simulate(make_cluster("p0 d0", d0=14), requests).columns.transfers.pull_s == exactly([0.11, 0.21])
    # Half a block is a block. The first one goes in without: the cache is empty.
    run = simulate(make_cluster("p0 d0", d0=14, watermark=0.5 / 14), requests)
    assert run.columns.transfers.pull_s == exactly([0.11, 0.487])


def test_a_prompt_waits_for_blocks_held_for_hand_overs():
    run = simulate(make_cluster("p0 d0", p0=20, max_held_fraction=0.5), [(0.0, 100, 3), (0.0, 100, 3)])
    # Of p0's 20 blocks 10 may be held and each prompt needs 7. The first is at d0 at 0.217; KVPulled is at p0 at 0.222.
    assert run.columns.requests.prefill_start_s == exactly([0.005, 0.222])
    assert run.columns.requests.first_token_s == exactly([0.105, 0.322])


def test_a_prompt_that_can_never_be_held_fails():
    run = simulate(make_cluster("p0 d0", p0=21, d0=12), [(0.0, 161, 3), (0.0, 160, 3), (0.0, 100, 3), (0.0, 192, 1)])
    requests = run.columns.requests
    # At most 10 blocks, 160 tokens, are held at p0 for a hand-over, whatever would come of it.
    assert requests.status.tolist() == [FAILED, FINISHED, FINISHED, FAILED]
    assert requests.causes[requests.cause[0]] == (
        "161 tokens need 11 KV blocks held for their hand-over; machine 0 holds at most 10"
    )
    assert requests.end_s[0] == exactly(0.01)  # RequestRejected takes 0.005 back


def test_a_context_that_can_never_fit_fails():
    run = simulate(make_cluster("p0 d0", d0=5), [(0.0, 80, 3), (0.0, 79, 2)])
    requests = run.columns.requests
    # d0 has blocks for 80 tokens, the prompt and one more have to fit.
    assert requests.status.tolist() == [FAILED, FINISHED]
    assert requests.causes[requests.cause[0]] == "80 tokens do not fit the 5 KV blocks of machine 1"
    assert requests.end_s[0] == exactly(0.005 + 0.08 + 0.005 + 0.005)


def test_an_evicted_request_comes_back_with_what_it_has_generated():
    run = simulate(make_cluster("m0", num_blocks=8, block_tokens=4), [(0.0, 8, 20), (0.0, 8, 20)])
    # Prefills 0.005 to 0.013 and to 0.021, then both decode. In step k each holds the blocks of 8 + k tokens: 3 blocks to
    # step 4 and 4 to step 8, which is all. Step 9 needs 5 each: at 0.021 + 8 x 0.030 = 0.261 request 1 loses its own, with
    # 9 tokens out. It is assigned again at 0.271 with 8 + 9 tokens, for which it needs 5 blocks, its next slot included.
    # Request 0 goes on to its 19th step, 0.591. Then request 1 prefills 0.017 and has its 10th token at 0.608.
    assert run.tokens_s(0) == exactly([0.013] + [0.021 + 0.03 * step for step in range(1, 20)])
    before = [0.021] + [0.021 + 0.03 * step for step in range(1, 9)]
    after = [0.608 + 0.03 * step for step in range(11)]
    assert run.tokens_s(1) == exactly(before + after)
    columns = run.columns
    assert columns.requests.evictions.tolist() == [0, 1]
    assert columns.requests.attempts.tolist() == [1, 2]
    assert columns.requests.num_recomputed.tolist() == [0, 0]  # no token came out twice
    assert columns.requeues.time_s == exactly([0.266])
    assert columns.batches.prompt_tokens.tolist() == [8, 8, 17]


def test_the_latest_arrival_is_evicted_though_it_decoded_first():
    cluster = make_cluster("p0 p1 d0", block_tokens=4, d0=15)
    run = simulate(cluster, [(0.0, 40, 8), (0.001, 8, 11)])
    # Request 1: p1 from 0.006 to 0.014, at d0 at 0.014 + 0.010 + 0.010 = 0.034, with 3 blocks, later 4.
    # Request 0: p0 from 0.005 to 0.045, at d0 at 0.045 + 0.010 + 0.042 = 0.097, joins at 0.124 with 11 blocks: 15 in all.
    # Its fifth step needs a 12th, at 0.244. Request 1 arrived later: it goes, after 7 steps, with 8 tokens out.
    assert run.columns.requeues.time_s == exactly([0.249])
    assert run.columns.requeues.request_id.tolist() == [1]
    assert run.tokens_s(0) == exactly([0.045] + [0.124 + 0.03 * step for step in range(1, 8)])
    # Assigned to p0 at 0.254, 16 tokens to 0.270: its 9th token. At d0 its 5 blocks are free when request 0 ends, at 0.334;
    # the hand-over takes 0.005 + 0.018, to 0.357.
    steps = [0.034 + 0.03 * step for step in range(1, 8)]
    assert run.tokens_s(1) == exactly([0.014, *steps, 0.27, 0.387, 0.417])
    assert run.columns.transfers.pull_s[-1] == exactly(0.334)


class Crosswise:
    """Request 0 is prefilled by machine 0 and decoded by machine 1, request 1 the other way round."""

    def place(self, request, pools):
        return pools.machines[request.request_id], pools.machines[1 - request.request_id]


def test_two_machines_that_hold_half_for_each_other_go_on():
    cluster = make_cluster("m0 m1", placement=Crosswise(), num_blocks=11, watermark=0.2, max_held_fraction=0.5)
    run = simulate(cluster, [(0.0, 80, 3), (0.0, 80, 3)])
    # Each holds 5 blocks for the other and has 6 left, which 81 tokens need. Nothing there grows, so the watermark of 3
    # blocks does not count. Prefill to 0.085, pulled at 0.090, there at 0.095 + 0.002 + 0.080.
    assert run.columns.transfers.pull_s == exactly([0.09, 0.09])
    assert run.tokens_s(0) == run.tokens_s(1) == exactly([0.085, 0.207, 0.237])


def test_a_hold_that_two_machines_could_not_exchange_is_refused():
    # Five blocks held on each side of ten would leave five free where the hand-over takes six: 80 tokens and one more.
    cluster = make_cluster("m0 m1", placement=Crosswise(), num_blocks=10, max_held_fraction=0.5)
    requests = simulate(cluster, [(0.0, 80, 3), (0.0, 80, 3)]).columns.requests
    cause = "80 tokens need 5 KV blocks held for their hand-over; machine {} holds at most 4"
    assert [requests.causes[number] for number in requests.cause] == [cause.format(0), cause.format(1)]
