import asyncio
import time

import pytest

from emu.runtime import timer as timer_module
from emu.runtime.timer import Timer


@pytest.fixture(params=["timerfd", "asyncio"], autouse=True)
def clock_source(request, monkeypatch):
    if request.param == "asyncio":
        monkeypatch.setattr(timer_module.sys, "platform", "another system")


async def woken(event: asyncio.Event) -> float:
    async with asyncio.timeout(5):
        await event.wait()
    return time.monotonic()


async def test_wakes_not_before_its_instant():
    event = asyncio.Event()
    instant = time.monotonic() + 0.02
    Timer(event.set).set(instant)
    assert await woken(event) >= instant - 0.002


async def test_an_instant_that_has_passed_wakes_at_once():
    event = asyncio.Event()
    Timer(event.set).set(-5.0)
    await woken(event)


async def test_setting_replaces_and_cancelling_disarms():
    wakes = []
    timer = Timer(lambda: wakes.append(None))
    timer.set(time.monotonic() + 0.01)
    timer.set(time.monotonic() + 0.02)
    await asyncio.sleep(0.06)
    assert len(wakes) == 1
    timer.set(time.monotonic() + 0.01)
    timer.cancel()
    await asyncio.sleep(0.04)
    assert len(wakes) == 1
    timer.set(-5.0)
    timer.cancel()
    await asyncio.sleep(0.01)
    assert len(wakes) == 1


async def test_an_instant_that_has_passed_replaces_one_to_come_and_is_replaced_by_one():
    wakes = []
    timer = Timer(lambda: wakes.append(time.monotonic()))
    timer.set(time.monotonic() + 0.01)
    timer.set(-5.0)
    await asyncio.sleep(0.04)
    assert len(wakes) == 1
    timer.set(-5.0)
    instant = time.monotonic() + 0.02
    timer.set(instant)
    await asyncio.sleep(0.06)
    assert len(wakes) == 2 and wakes[1] >= instant - 0.002
