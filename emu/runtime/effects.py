"""Performs the actions that state machines answer with: one table over all types of them, which raises on one it lacks."""

from collections.abc import Iterable

from emu.core.facts import FACTS
from emu.core.messages import (
    CutRun,
    DropAttempt,
    FreeKV,
    OfferKV,
    PullKV,
    ResumeOutput,
    RunSteps,
    Send,
    SendOutput,
    SetFlowEnd,
    SetTimer,
)

# The method of `Effects` that performs each type of action.
PERFORMERS: dict[type, str] = {
    Send: "send",
    SendOutput: "send_output",
    ResumeOutput: "resume_output",
    OfferKV: "offer_kv",
    PullKV: "pull_kv",
    FreeKV: "free_kv",
    DropAttempt: "drop_attempt",
    RunSteps: "run_steps",
    CutRun: "cut_run",
    SetTimer: "set_timer",
    SetFlowEnd: "set_flow_end",
}


class Effects:
    """What runs a state machine does for it: a method for each type of action that it answers with.

    A method gets the address of the state machine that decided, its action, the time of the event that it answered, and who
    sent that event.
    """

    def perform(self, address: int, actions: Iterable[tuple], now_s: float, sender: int) -> None:
        """Perform actions in order; facts among them are recorded elsewhere. Raises TypeError for an unknown one."""
        for action in actions:
            kind = type(action)
            if kind in FACTS:
                continue
            method = getattr(self, PERFORMERS.get(kind, ""), None)
            if method is None:
                raise TypeError(f"{type(self).__name__} cannot perform {action}")
            method(address, action, now_s, sender)
