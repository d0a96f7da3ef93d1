import time

from emu.runtime.clock import WallClock, estimate_offset


def test_dilated_time_and_back():
    clock = WallClock(start=1000.0, dilation=4.0)
    assert clock.local(0.0) == 1000.0
    assert clock.local(2.5) == 1010.0


def test_offset_of_a_clock_on_another_host():
    ahead_s = 5.0  # the reference clock is five seconds ahead of this host's
    clock = WallClock(start=1000.0, dilation=1.0, offset_s=ahead_s, error_s=0.001)
    assert clock.local(1.0) == 996.0
    assert clock.error_s == 0.001


async def test_the_estimate_is_within_its_own_error_bound():
    ahead_s = 123.0
    delays_s = iter([0.01, 0.002, 0.02, 0.005])

    async def ping() -> float:
        # All the delay is on the way back: the worst case for the middle of the round trip.
        reading = time.monotonic() + ahead_s
        time.sleep(next(delays_s))
        return reading

    offset_s, error_s = await estimate_offset(ping, num_pings=4)
    assert abs(offset_s - ahead_s) <= error_s
    assert error_s >= 0.001, "half of the fastest round trip"
