import asyncio
import threading

import pytest

from emu.execution.step_thread import StepThread


@pytest.fixture
async def thread():
    thread = StepThread()
    yield thread
    thread.close()


async def test_steps_run_one_after_the_other_in_one_thread(thread):
    ran = []

    def step(number):
        ran.append((number, threading.current_thread().name))
        return number

    assert await asyncio.gather(*[thread.run(lambda number=number: step(number)) for number in range(3)]) == [0, 1, 2]
    assert ran == [(number, "engine") for number in range(3)]


async def test_an_error_comes_out_and_the_thread_goes_on(thread):
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 / 0)
    assert await thread.run(lambda: 7) == 7


async def test_who_no_longer_waits_is_not_told(thread):
    started, release = threading.Event(), threading.Event()

    def step():
        started.set()
        release.wait(10)

    waiting = asyncio.ensure_future(thread.run(step))
    await asyncio.to_thread(started.wait, 10)
    waiting.cancel()
    release.set()
    assert await thread.run(lambda: 7) == 7
    assert waiting.cancelled()


async def test_the_end_of_a_step_is_told_with_its_time(thread):
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    before_s = loop.time()
    thread.start(lambda: 7, lambda result, end_s: ended.set_result((result, end_s)))
    result, end_s = await ended
    assert result == 7 and before_s <= end_s <= loop.time()
