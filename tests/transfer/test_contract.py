"""What every transport does, between actors on one Ray node and on two."""

import time

import pytest
import ray
from ray.exceptions import RayTaskError

from tests.transfer.ends import Ends, eventually
from tests.transfer.settings import QUICK, settings_named

HERE, BESIDE, ELSEWHERE = 0, 1, 2  # two ends on the first node and one on the second
MESSAGE = QUICK["max_message_bytes"]
TRANSPORTS = ("object_store", "gloo", "nixl", "nccl", "cuda_ipc")


def settings_or_skip(name, **changes):
    if name in ("nccl", "cuda_ipc"):
        torch = pytest.importorskip("torch")
        needed, why = (2, "two GPUs: NCCL refuses two ranks on one card") if name == "nccl" else (1, "a GPU")
        if torch.cuda.device_count() < needed:
            pytest.skip(f"{name} needs {why}")
    settings = settings_named(name, **changes)
    try:
        settings.check()
    except ValueError as missing:
        pytest.skip(str(missing))
    return settings


def connected(settings):
    first, second = (node["NodeID"] for node in ray.nodes() if node["Alive"])
    return Ends(settings, [first, first, second])


@pytest.fixture(scope="module", params=TRANSPORTS)
def ends(two_nodes, request):
    """Three ends for the tests that leave them as they were."""
    ends = connected(settings_or_skip(request.param))
    yield ends
    ends.close()


@pytest.fixture
def mortals(two_nodes, ends, request):
    """Ends to be killed, by the same transport."""
    mortals = connected(settings_or_skip(request.node.callspec.params["ends"]))
    yield mortals
    mortals.close()


@pytest.fixture(params=[BESIDE, ELSEWHERE], ids=["one node", "two nodes"])
def destination(request, ends):
    """Who pulls from HERE; it is idle again at the end, and nothing went wrong but what the test took the counts of."""
    ends.call(request.param, "take_counts")
    yield request.param
    assert eventually(lambda: ends.is_idle(HERE) and ends.is_idle(request.param))
    counts = ends.call(request.param, "take_counts")
    assert counts._replace(bytes_moved=0, verified=0) == type(counts)()


SIZES = (1, 7, 8, 4097, MESSAGE - 1, MESSAGE, 5 * MESSAGE + 3)


@pytest.mark.parametrize("num_bytes", SIZES)
def test_the_bytes_that_come_are_those_that_were_held(ends, destination, num_bytes):
    ends.call(HERE, "hold", 70 + num_bytes, 3, num_bytes)
    ends.call(destination, "keep")
    pulled = ends.call(destination, "pull", HERE, 70 + num_bytes, 3, num_bytes)
    ends.call(HERE, "free", 70 + num_bytes, 3)
    assert pulled.num_bytes == num_bytes
    assert pulled.num_messages == -(-num_bytes // MESSAGE)
    assert pulled.start_s < pulled.fetched_s <= pulled.verified_s
    kept, expected = ray.get(
        [ends.start(destination, "kept_bytes"), ends.start(destination, "expected", 70 + num_bytes, 3, num_bytes)]
    )
    assert kept == expected


def test_a_gibibyte(ends, destination):
    assert ends.move(HERE, destination, 1 << 30).num_messages == (1 << 30) // MESSAGE
    counts = ends.call(destination, "take_counts")
    assert (counts.bytes_moved, counts.verified) == (1 << 30, 1)


def test_many_at_once_and_both_ways(ends, destination):
    """More of them than there are buffers, and two ends that each wait for the other."""
    keys, num_bytes = [(1000 + index, 1) for index in range(8)], 2 * MESSAGE + 5
    ray.get([ends.start(end, "hold", *key, num_bytes) for key in keys for end in (HERE, destination)])
    there = ends.start(destination, "pull_several", HERE, keys, num_bytes)
    back = ends.start(HERE, "pull_several", destination, keys, num_bytes)
    assert len(ray.get(there, timeout=60)) == len(ray.get(back, timeout=60)) == len(keys)
    ray.get([ends.start(end, "free", *key) for key in keys for end in (HERE, destination)])


def test_pieces_leave_as_they_come_into_being(ends, destination):
    """Four layers of 5 MiB in a second: each goes in two messages. All at once they would be five, and there too early."""
    start_s = time.monotonic()
    pulled = ends.move(HERE, destination, 5 * MESSAGE, num_pieces=4, production_s=1.0)
    assert 5 < pulled.num_messages <= 8
    assert pulled.fetched_s > start_s + 1.0


def test_small_pieces_wait_for_each_other(ends, destination):
    """1,000 of 400 bytes are 98 messages of 4 KiB, if each is sent in time, and the fewer the later."""
    pulled = ends.move(HERE, destination, 400_000, num_pieces=1000, production_s=0.3)
    assert 1 < pulled.num_messages <= 98


@pytest.mark.parametrize(
    "what",
    ["corrupt", "truncated"],
)
def test_what_comes_wrong_is_noticed_and_sent_again(ends, destination, what):
    """One of five messages."""
    ends.call(destination, "go_wrong", **{what: 1})
    ends.move(HERE, destination, 5 * MESSAGE)
    counts = ends.call(destination, "take_counts")
    assert (getattr(counts, what), counts.resent, counts.verified, counts.failed) == (1, 1, 1, 0)


@pytest.mark.parametrize(("where", "what"), [("destination", "stuck"), ("source", "lost")])
def test_what_does_not_come_in_time_is_noticed_and_sent_again(ends, destination, where, what):
    """One of five messages, if no other takes a second."""
    ends.call(destination, "hurry", 1.0)
    ends.call(HERE if where == "source" else destination, "go_wrong", **{what: 1})
    ends.move(HERE, destination, 5 * MESSAGE)
    ends.call(destination, "hurry", QUICK["timeout_s"])
    counts = ends.call(destination, "take_counts")
    assert counts.late >= 1 and counts.resent >= 1
    assert (counts.verified, counts.failed) == (1, 0)


def test_what_comes_twice_counts_once(ends, destination):
    ends.call(HERE, "go_wrong", twice=2)
    ends.move(HERE, destination, 5 * MESSAGE)
    counts = ends.call(destination, "take_counts")
    assert (counts.duplicated, counts.resent, counts.bytes_moved) == (2, 0, 5 * MESSAGE)


def test_messages_may_come_in_another_order(ends, destination):
    ends.call(HERE, "go_wrong", **{"kept back": 1})
    ends.move(HERE, destination, 5 * MESSAGE)
    counts = ends.call(destination, "take_counts")
    assert (counts.reordered, counts.resent, counts.bytes_moved) == (1, 0, 5 * MESSAGE)


def test_what_never_comes_right_is_given_up(ends, destination):
    ends.call(destination, "go_wrong", corrupt=1000)
    with pytest.raises(RayTaskError, match=r"TransferFailed: byte \d+ holds .*, and was changed on the way, after 4 tries"):
        ends.move(HERE, destination, 3000)
    ends.call(destination, "go_wrong")
    counts = ends.call(destination, "take_counts")
    assert (counts.corrupt, counts.resent, counts.failed, counts.verified) == (4, 3, 1, 0)


def test_what_is_not_held_is_missed(ends, destination):
    with pytest.raises(RayTaskError, match="TransferFailed: machine 0 does not hold it, after 4 tries"):
        ends.call(destination, "pull", HERE, 5, 5, 1000)
    assert ends.call(destination, "take_counts").missing == 4


def test_anothers_payload_is_not_taken_for_it(ends, destination):
    """The bytes of request 6 under the name of request 7: intact, and wrong."""
    ends.call(HERE, "hold_anothers", 7, 6, 2 * MESSAGE)
    with pytest.raises(RayTaskError, match="holds bytes that are not this request's, and came as it was sent"):
        ends.call(destination, "pull", HERE, 7, 1, 2 * MESSAGE)
    ends.call(HERE, "free", 7, 1)
    assert ends.call(destination, "take_counts").corrupt == 8


@pytest.mark.parametrize("production_s", [0.0, 30.0], ids=["serialized", "layer-wise"])
def test_cancelled_it_gives_back_all_memory(ends, destination, production_s):
    num_bytes = 200 << 20
    ends.call(HERE, "hold", 8, 1, num_bytes, 80, production_s)
    ends.call(destination, "start_pull", HERE, 8, 1, num_bytes, 80, production_s)
    assert eventually(lambda: ends.call(destination, "take_counts").bytes_moved > 0)
    ends.call(destination, "cancel_pull")
    ends.call(HERE, "free", 8, 1)
    assert eventually(lambda: ends.is_idle(HERE) and ends.is_idle(destination))
    ends.call(destination, "take_counts")
    ends.move(HERE, destination, 3 * MESSAGE)


def test_freed_while_it_is_sent(ends, destination):
    """The source has let go of it: the destination gives up, and neither keeps a buffer."""
    ends.call(HERE, "hold", 9, 1, 200 << 20, 80, 30.0)
    pull = ends.start(destination, "pull", HERE, 9, 1, 200 << 20)
    assert eventually(lambda: ends.call(destination, "take_counts").bytes_moved > 0)
    ends.call(HERE, "free", 9, 1)
    with pytest.raises(RayTaskError, match="TransferFailed: machine 0 does not hold it"):
        ray.get(pull, timeout=60)
    ends.call(destination, "take_counts")


def test_ends_that_die_in_the_middle(mortals):
    """A destination: its source has its buffers back and serves others. Then a source: its destination is told, and goes on."""
    num_bytes = 2 << 30
    for source, destination in ((HERE, BESIDE), (HERE, ELSEWHERE)):
        mortals.call(source, "hold", 1, 1, num_bytes)
        mortals.call(destination, "start_pull", source, 1, 1, num_bytes)
    assert eventually(lambda: mortals.call(BESIDE, "take_counts").bytes_moved > 0)
    mortals.kill(BESIDE)
    assert eventually(lambda: mortals.call(ELSEWHERE, "take_counts").bytes_moved > 0)
    mortals.call(ELSEWHERE, "cancel_pull")
    mortals.call(HERE, "free", 1, 1)
    assert eventually(lambda: mortals.is_idle(HERE))
    mortals.move(HERE, ELSEWHERE, 5 * MESSAGE)
    mortals.call(HERE, "hold", 2, 1, num_bytes)
    pull = mortals.start(ELSEWHERE, "pull", HERE, 2, 1, num_bytes)
    assert eventually(lambda: mortals.call(ELSEWHERE, "take_counts").bytes_moved > 0)
    mortals.kill(HERE)
    with pytest.raises(RayTaskError, match="SourceLost: machine 0 is gone"):
        ray.get(pull, timeout=60)
    assert eventually(lambda: mortals.is_idle(ELSEWHERE))
