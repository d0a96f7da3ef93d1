import asyncio
import time

import pytest

from emu.runtime import inbox as inbox_module
from emu.runtime.clock import WallClock
from emu.runtime.inbox import Inbox


def raise_it(error: Exception) -> None:
    raise error


def make_inbox(lead_s: float = 0.0) -> tuple[Inbox, list]:
    handled = []
    clock = WallClock(time.monotonic(), dilation=1.0)
    return Inbox(clock, lambda event, now_s, sender: handled.append((event, now_s, sender)), raise_it, lead_s), handled


async def until(handled: list, num: int) -> None:
    async with asyncio.timeout(5):
        while len(handled) < num:
            await asyncio.sleep(0.001)


async def test_events_are_handled_by_due_time_sender_and_sequence_as_of_their_due_time():
    inbox, handled = make_inbox()
    inbox.put_message(0.08, 2, 7, "third")
    inbox.put_message(0.09, 0, 1, "last")
    inbox.put_message(0.08, 1, 9, "second")
    inbox.put_message(0.08, 1, 8, "first")
    await until(handled, 4)
    assert handled == [("first", 0.08, 1), ("second", 0.08, 1), ("third", 0.08, 2), ("last", 0.09, 0)]


async def test_a_late_message_is_handled_at_the_actual_time_and_counted():
    inbox, handled = make_inbox()
    inbox.put_message(-3.0, 0, 1, "late")
    await until(handled, 1)
    [(_, now_s, _)] = handled
    assert now_s >= 0.0
    [late_s] = inbox.message_late_s
    assert late_s >= 3.0


async def test_an_event_with_its_own_time_is_handled_as_of_it_however_late():
    inbox, handled = make_inbox()
    inbox.put(-1.0, 0, 1, "end of a run")
    await until(handled, 1)
    assert handled == [("end of a run", -1.0, 0)]
    assert inbox.message_late_s == []


async def test_with_a_lead_events_are_handled_before_their_due_time():
    inbox, handled = make_inbox(lead_s=60.0)
    inbox.put_message(30.0, 0, 1, "half a minute ahead")
    await until(handled, 1)
    assert inbox.message_late_s[0] > 29.0, "a lead moves the deadline forward: 30 s is too late for a lead of 60 s"


async def test_what_a_handler_puts_in_the_past_is_handled_in_the_same_wake_up():
    handled = []
    clock = WallClock(time.monotonic(), dilation=1.0)

    def handle(event: str, now_s: float, sender: int) -> None:
        handled.append(event)
        if event == "start":
            inbox.put(now_s + 1e-9, 0, 2, "end")

    inbox = Inbox(clock, handle, raise_it)
    inbox.put(0.0, 0, 1, "start")
    inbox.put(0.01, 0, 3, "next")
    await until(handled, 3)
    assert handled == ["start", "end", "next"]


@pytest.mark.parametrize("after_s", [0.0, 1e-12])
async def test_events_that_follow_each_other_without_end(monkeypatch, after_s):
    monkeypatch.setattr(inbox_module, "EVENTS_A_WAKE", 1000)
    failed = []
    inbox = Inbox(
        WallClock(time.monotonic(), 1.0), lambda event, now_s, _: inbox.put(now_s + after_s, 0, 1, event), failed.append
    )
    inbox.put(0.001, 0, 1, "again")
    await until(failed, 1)
    await asyncio.sleep(0.01)
    assert [str(error) for error in failed] == ["does not get on: 1,000 events in a row, the last at 0.001 s"]


async def test_an_event_that_cannot_be_handled_is_the_last():
    handled, failed = [], []

    def handle(event: str, *_) -> None:
        handled.append(event)
        raise ValueError(f"cannot handle {event}")

    inbox = Inbox(WallClock(time.monotonic(), 1.0), handle, failed.append)
    inbox.put(0.0, 0, 1, "this")
    inbox.put(0.0, 0, 2, "that")
    await until(failed, 1)
    inbox.put(0.0, 0, 3, "any other")
    await asyncio.sleep(0.01)
    assert handled == ["this"]
    assert [str(error) for error in failed] == ["cannot handle this"]
