"""Which requests are at a machine, and what the scheduler can conclude from that about its queue."""

from emu.compat.splitwise_sim.task import Task
from emu.core.message import Message
from emu.core.messages import SCHEDULER, QueueChanged, Send


class Presence:
    """Requests that have a task at machine `index`, waiting or running.

    A task that finds others here waits, one that does not starts at once: so the scheduler believes, which sees both come.
    Only where it is otherwise has the machine to say so.
    """

    def __init__(self, index: int, reports: bool) -> None:
        self._index = index
        self._reports = reports
        self._believed = False
        self._here: set[tuple[int, int]] = set()
        self._num_arrived = 0

    def arrive(self, task: Task) -> None:
        task.order = self._num_arrived
        self._num_arrived += 1
        if self._here:
            self._believed = True
        self._here.add((task.request_id, task.attempt))

    def arrive_beside(self, prompt: Task, decode: Task) -> None:
        """The decode of the same request comes with its prompt, and waits for it."""
        decode.order = prompt.order
        self._believed = True

    def leave(self, task: Task) -> None:
        self._here.discard((task.request_id, task.attempt))

    def report(self, is_waiting: bool, actions: list[Message]) -> None:
        """Tell the scheduler if it is wrong."""
        if self._reports and self._believed != is_waiting:
            self._believed = is_waiting
            actions.append(Send(SCHEDULER, QueueChanged(self._index, is_waiting)))
