"""The decodes in a machine's batch, each of which grows by one token a step."""

from emu.compat.splitwise_sim.task import Task


class ActiveDecodes:
    """`tasks` by request, oldest member first, after `step` steps of the machine.

    `context_tokens` is what they attend to in their next step: the tokens cached and the new one of each. `leaves` are those
    that left since last asked, other than by finishing.
    """

    def __init__(self) -> None:
        self.tasks: dict[int, Task] = {}
        self.context_tokens = 0
        self.leaves: list[int] = []
        self.step = 0

    def join(self, task: Task) -> None:
        self.tasks[task.request_id] = task
        task.joined_at = self.step
        self.context_tokens += task.num_cached + 1

    def advance(self, num_steps: int) -> None:
        self.step += num_steps
        self.context_tokens += num_steps * len(self.tasks)

    def leave(self, task: Task) -> None:
        """It has finished."""
        del self.tasks[task.request_id]
        num_steps = self.step - task.joined_at
        task.num_cached += num_steps
        task.num_generated += num_steps
        self.context_tokens -= task.num_cached + 1

    def drop(self, task: Task) -> None:
        """It is left out of the next batch, or was cancelled."""
        self.leave(task)
        self.leaves.append(task.request_id)
