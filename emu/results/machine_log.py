"""What one machine did: its steps, and who got a token from which of them."""

from array import array

import numpy as np

from emu.core.batch import Batch, Prefill
from emu.results.rows import RowFormat

# A machine's decodes may attend to more than 2^31 tokens in all.
BATCH = RowFormat("first_step num_decodes num_paused num_prefills", "start_s", longs="context_tokens")
PREFILL = RowFormat(" ".join(Prefill._fields))
STRETCH = RowFormat("request_id attempt first_step last_step first_token")
_JOIN = RowFormat("request_id attempt first_step first_token")
_LEAVE = RowFormat("request_id last_step")
_pack_batch, _pack_prefill, _pack_join, _pack_leave = BATCH.pack, PREFILL.pack, _JOIN.pack, _LEAVE.pack


class MachineLog:
    """Takes the Emits of one machine in order. Steps are counted from 0; nothing is stored a token.

    `step_ends_s` has an entry a step; `batches` and `prefills` are packed rows.
    """

    __slots__ = ("_joins", "_leaves", "batches", "prefills", "step_ends_s")

    def __init__(self) -> None:
        self.step_ends_s = array("d")
        self.batches, self.prefills = bytearray(), bytearray()
        self._joins, self._leaves = bytearray(), bytearray()

    def emit(self, start_s: float, boundaries_s: list[float], batch: Batch | None, finished: tuple[int, ...]) -> None:
        """Take a TokensEmitted, less its machine."""
        step_ends_s = self.step_ends_s
        if batch is not None:
            step = len(step_ends_s)
            prefills, joins, leaves, num_decodes, context_tokens, num_paused = batch
            for request_id in leaves:
                self._leaves += _pack_leave(request_id, step - 1)
            for request_id, attempt, _, num_generated in joins:
                self._joins += _pack_join(request_id, attempt, step, num_generated + 1)
            if prefills:
                for prefill in prefills:
                    self.prefills += _pack_prefill(*prefill)
                if finished:  # with its prefill: it never joined
                    prefilled = {prefill[0] for prefill in prefills}
                    finished = tuple([request_id for request_id in finished if request_id not in prefilled])
            self.batches += _pack_batch(step, num_decodes, num_paused, len(prefills), context_tokens, start_s)
        step_ends_s.fromlist(boundaries_s)
        for request_id in finished:
            self._leaves += _pack_leave(request_id, len(step_ends_s) - 1)

    def stretches(self) -> np.ndarray:
        """Which steps gave a token each to whom, rows of STRETCH by request. What still runs got its last at the last step."""
        joins, leaves = _JOIN.unpack(self._joins), _LEAVE.unpack(self._leaves)
        joins = joins[np.argsort(joins["request_id"], kind="stable")]
        leaves = leaves[np.argsort(leaves["request_id"], kind="stable")]
        rows = STRETCH.empty(len(joins))
        for name in ("request_id", "attempt", "first_step", "first_token"):
            rows[name] = joins[name]
        # The k-th time that a request leaves ends the stretch that began when it joined for the k-th time.
        request_id = rows["request_id"]
        num_before = np.arange(len(rows)) - np.searchsorted(request_id, request_id)
        left = np.searchsorted(leaves["request_id"], request_id) + num_before
        is_over = left < np.searchsorted(leaves["request_id"], request_id, side="right")
        rows["last_step"] = len(self.step_ends_s) - 1
        rows["last_step"][is_over] = leaves["last_step"][left[is_over]]
        return rows
