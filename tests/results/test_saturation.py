import numpy as np
import pytest
from facts import prefill, recorded, run_cluster

from emu.core.facts import KVHandedOver, RequestEnded, RequestPlaced, drain_cause
from emu.results.saturation import is_saturated, waiting_work_s


def placed(num_requests, decode_on=0):
    return [(0, RequestPlaced(request, 1, 0, decode_on)) for request in range(num_requests)]


def test_queued_prompts_by_hand():
    # Some are queued from 0.5 to 1 and from 1.5 to the end of facts at 2: 200 prompt tokens are begun in 1 s of queueing.
    columns = recorded(
        [(0, 150, 1), (0.5, 50, 1), (1.5, 100, 1), (1.75, 40, 1), (1.8, 7, 1)],
        [
            *placed(5),
            prefill(0, 0, 1, (0, 1, 150, 0), finished=(0,)),
            prefill(0, 1, 2, (1, 1, 50, 0), finished=(1,)),
            (2, RequestEnded(4, 1, drain_cause(0.2))),
        ],
    ).columns()
    times_s = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 1.75, 1.8, 2, 3.0])
    expected = [0, 0, 0.25, 0.25, 0, 0.5, 0.7, 0.735, 0.7, 0.7]
    np.testing.assert_allclose(waiting_work_s(columns, times_s), expected, rtol=1e-12)


def test_the_oldest_hand_over_by_hand():
    columns = recorded(
        [(0, 10, 2), (0, 10, 2), (0, 10, 2), (0, 10, 2)],
        [
            *placed(4, decode_on=1),
            prefill(0, 0, 1, *((request, 1, 10, 0) for request in range(4))),
            (2.25, KVHandedOver(0, 1, 0, 1, 10, 1.0, 1.0)),  # pulled at once
            (5.0, KVHandedOver(1, 1, 0, 1, 10, 1.5, 3.0)),
            (5.0, KVHandedOver(2, 1, 0, 1, 10, 2.0, 4.0)),
            (9.0, RequestEnded(3, 1, drain_cause(9.0))),  # never pulled: no fact but this
        ],
    ).columns()
    times_s = np.array([0.5, 1.0, 2.5, 8.0, 9.0])
    np.testing.assert_allclose(waiting_work_s(columns, times_s), [0, 0, 1.5, 7, 0])
    columns.requests.status[3] = 1  # had it finished, it would have decoded where it was prefilled
    np.testing.assert_allclose(waiting_work_s(columns, times_s), [0, 0, 1.0, 0, 0])
    np.testing.assert_allclose(waiting_work_s(columns, np.array([3.5])), [1.5])


def queue_run(arrivals, service_s):
    """Prompts of 100 tokens through one machine, in order, each as long as given."""
    facts, free_s = placed(len(arrivals)), 0.0
    for request, (arrival_s, duration_s) in enumerate(zip(arrivals, service_s, strict=True)):
        start_s = max(free_s, arrival_s)
        free_s = start_s + duration_s
        facts.append(prefill(0, start_s, free_s, (request, 1, 100, 0), finished=(request,)))
    return recorded([(arrival_s, 100, 1) for arrival_s in arrivals], facts).columns()


@pytest.mark.parametrize(
    ("arrivals", "saturated"),
    [
        (np.arange(100) * 1.0, False),  # 1 s of work a second: nothing waits
        (np.arange(100) * 0.5, True),  # two a second, one a second done: 50 s of work wait in the end
        (np.arange(100) * 0.98, False),  # 2 % too much: grows, but to just 2 s
        (np.concatenate([np.zeros(50), 1.2 * np.arange(50)]), False),  # a burst of 50 s, being worked off
        (np.concatenate([np.zeros(50), 0.9 * np.arange(50)]), True),
        (np.zeros(3), False),  # one burst of 2 s of work beyond the first
        (np.zeros(4), True),
    ],
)
def test_saturated_is_much_work_and_ever_more(arrivals, saturated):
    assert is_saturated(queue_run(arrivals, np.ones(len(arrivals))), 2.0) is saturated


def test_a_run_that_prefilled_nothing_is_not_called_saturated():
    assert is_saturated(recorded([(0, 8, 1), (9, 8, 1)], []).columns(), 2.0) is False


def test_a_token_machine_short_of_blocks_saturates_the_cluster():
    requests = [(0.1 * i, 16, 40) for i in range(100)]
    assert is_saturated(run_cluster(("p0", "d0"), requests, num_kv_blocks=40).recorder.columns(), 2.0)
    assert not is_saturated(run_cluster(("p0", "d0"), requests, num_kv_blocks=4000).recorder.columns(), 2.0)
