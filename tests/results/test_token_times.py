"""Token times derived from segments against a list of every token."""

from collections import defaultdict

import numpy as np
from facts import workload_of
from hypothesis import given
from hypothesis import strategies as st

from emu.core.batch import Batch, DecodeJoin, Prefill
from emu.core.facts import TokensEmitted
from emu.results.recorder import Recorder

NUM_REQUESTS, NUM_MACHINES = 5, 3


@st.composite
def emissions(draw):
    """Emits of machines that give tokens to anyone in any order, and (request, token number, time) of every token.

    Mostly a request goes on where it was, but it may also start again from scratch, skip tokens, be in the batches of two
    machines at once, or be left in a batch for ever.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    restarts = draw(st.sampled_from([0.0, 0.1, 0.5]))
    num_out = [0] * NUM_REQUESTS
    now_s, running = [0.0] * NUM_MACHINES, [{} for _ in range(NUM_MACHINES)]
    facts, tokens = [], []
    for _ in range(draw(st.integers(0, 25))):
        machine = int(rng.integers(NUM_MACHINES))
        batch = running[machine]
        start_s = max(now_s[machine], max(now_s) if rng.random() < 0.8 else 0.0) + rng.random()
        leaves = [request for request in batch if rng.random() < 0.3]
        for request in leaves:
            del batch[request]
        prefills, joins = [], []
        for request in rng.permutation(NUM_REQUESTS)[: rng.integers(0, 4)].tolist():
            if request in batch:
                continue
            num_generated = num_out[request] if rng.random() >= restarts else int(rng.integers(0, 4))
            if rng.random() < 0.4:
                prefills.append(Prefill(request, 1, 7, num_generated))
            else:
                joins.append(DecodeJoin(request, 1, 7, num_generated))
                batch[request] = num_generated
        num_steps = 1 if prefills else int(rng.integers(1, 6))
        ends_s = tuple((start_s + np.cumsum(rng.random(num_steps) + 1e-3)).tolist())
        for end_s in ends_s:
            for request in batch:
                batch[request] += 1
                tokens.append((request, batch[request], end_s))
        tokens += [(prefill.request_id, prefill.num_generated + 1, ends_s[0]) for prefill in prefills]
        for request, number, _ in tokens:
            num_out[request] = max(num_out[request], number)
        finished = tuple(request for request in batch if rng.random() < 0.1)
        told = int(rng.integers(0, num_steps))  # a run may be told in two parts
        whole = Batch(tuple(prefills), tuple(joins), tuple(leaves), len(batch), 0, 0)
        if told:
            facts.append(TokensEmitted(machine, start_s, ends_s[:told], whole, ()))
            facts.append(TokensEmitted(machine, ends_s[told - 1], ends_s[told:], None, finished))
        else:
            facts.append(TokensEmitted(machine, start_s, ends_s, whole, finished))
        for request in finished:
            del batch[request]
        now_s[machine] = ends_s[-1]
    return facts, tokens


@given(emissions(), st.lists(st.booleans(), min_size=NUM_REQUESTS, max_size=NUM_REQUESTS))
def test_equal_to_a_list_of_every_token(drawn, selected):
    facts, tokens = drawn
    recorder = Recorder(workload_of([(0, 7, 9)] * NUM_REQUESTS), NUM_MACHINES)
    for fact in facts:
        recorder.record(fact.boundaries_s[-1], fact)
    columns = recorder.columns()

    out_s = [defaultdict(lambda: np.inf) for _ in range(NUM_REQUESTS)]
    num_emitted = [0] * NUM_REQUESTS
    for request, number, at_s in tokens:
        out_s[request][number] = min(out_s[request][number], at_s)
        num_emitted[request] += 1
    gaps_s = []
    for request, known_s in enumerate(out_s):
        requests = columns.requests
        assert requests.num_tokens_out[request] == len(known_s)
        assert requests.num_recomputed[request] == num_emitted[request] - len(known_s)
        np.testing.assert_equal(requests.first_token_s[request], known_s.get(1, np.nan))
        np.testing.assert_equal(requests.second_token_s[request], known_s.get(2, np.nan))
        np.testing.assert_equal(requests.last_token_s[request], max(known_s.values(), default=np.nan))
        if selected[request]:
            gaps_s += [known_s[number + 1] - known_s[number] for number in list(known_s) if number + 1 in known_s]
    gap_s, weight = columns.tokens.gaps(np.array(selected))
    assert (weight > 0).all()
    np.testing.assert_array_equal(np.sort(np.repeat(gap_s, weight)), np.sort(gaps_s))
