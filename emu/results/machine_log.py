"""What one machine did: its steps, and who got a token from which of them."""

from array import array

from emu.core.messages import DecodeJoin, Emit


class MachineLog:
    """Takes the Emits of one machine in order. Steps are counted from 0; nothing is stored a token.

    `step_ends_s` has an entry a step. The others are flat rows: `prefills` of 4 (the fields of `Prefill`), `batches` of 5
    (first step, num_decodes, context_tokens, num_paused, num_prefills) with `batch_starts_s` beside it, and `decodes` of 5
    (request, attempt, first step, last step, first token): the stretches of steps that are over.
    """

    __slots__ = ("_open", "batch_starts_s", "batches", "decodes", "prefills", "step_ends_s")

    def __init__(self) -> None:
        self.step_ends_s = array("d")
        self.batch_starts_s = array("d")
        self.batches = array("i")
        self.prefills = array("i")
        self.decodes = array("i")
        self._open: dict[int, tuple[DecodeJoin, int]] = {}  # request -> how it joined, and at which step

    def emit(self, fact: Emit) -> None:
        _, start_s, boundaries_s, batch, finished = fact
        step_ends_s, running = self.step_ends_s, self._open
        if batch is not None:
            step = len(step_ends_s)
            prefills, joins, leaves, num_decodes, context_tokens, num_paused = batch
            for request_id in leaves:
                self._close(request_id, step - 1)
            for join in joins:
                running[join[0]] = join, step
            for prefill in prefills:
                self.prefills.extend(prefill)
            self.batches.fromlist([step, num_decodes, context_tokens, num_paused, len(prefills)])
            self.batch_starts_s.append(start_s)
        step_ends_s.extend(boundaries_s)
        for request_id in finished:
            if request_id in running:  # else it ended with its prefill
                self._close(request_id, len(step_ends_s) - 1)

    def end(self) -> None:
        """No more Emits will come: what still runs got its last token at the last step."""
        for request_id in list(self._open):
            self._close(request_id, len(self.step_ends_s) - 1)

    def _close(self, request_id: int, last_step: int) -> None:
        (_, attempt, _, num_generated), first_step = self._open.pop(request_id)
        self.decodes.fromlist([request_id, attempt, first_step, last_step, num_generated + 1])
