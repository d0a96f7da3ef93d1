"""Takes the facts of a run as they come, and turns them into tables once it is over."""

from collections.abc import Callable
from typing import Any

import numpy as np

from emu.core.batch import Batch
from emu.core.facts import (
    KVHandedOver,
    OutputWritten,
    PayloadMoved,
    PoolChanged,
    ProbeStepRun,
    RequestEnded,
    RequestPlaced,
    RequestRequeued,
    StaleDropped,
    TokensEmitted,
)
from emu.results import tables
from emu.results.columns import Columns, Drops, Payloads, PoolMoves, ProbeSteps, Requeues
from emu.results.machine_log import MachineLog
from emu.results.request_log import RequestLog
from emu.results.token_times import TokenTimes
from emu.workload.workload import Workload

_PAYLOAD_TYPES = (np.int32, np.int32, np.int64, np.int32, *[float] * 6)


class Recorder:
    """The facts of one run of `workload`, each recorded once; those of one party must come in its own order of time."""

    def __init__(self, workload: Workload, num_machines: int) -> None:
        self.workload = workload
        self._machines = [MachineLog() for _ in range(num_machines)]
        self._requests = RequestLog()
        self._payloads: list[PayloadMoved] = []
        self._pool_moves: list[tuple[float, int, str]] = []
        self._requeues: list[tuple[float, int, bool, str]] = []
        self._drops: list[tuple[float, int, int, str]] = []
        self._answers: dict[int, OutputWritten] = {}
        self._probe_steps: list[tuple[float, int, str, float]] = []
        self._columns: Columns | None = None
        self.handlers: dict[type, Callable[[float, Any], None]] = {
            RequestPlaced: self._requests.place,
            KVHandedOver: self._requests.transfer,
            PayloadMoved: self._on_move_payload,
            RequestEnded: self._requests.end,
            PoolChanged: self._on_move_pool,
            RequestRequeued: self._on_requeue,
            StaleDropped: self._on_drop_stale,
            OutputWritten: self._on_answer,
            ProbeStepRun: self._on_probe_step,
        }

    def record(self, now_s: float, fact: tuple) -> None:
        """Record a fact, an action of one of the types in `facts.FACTS`, that was decided at `now_s`."""
        kind = type(fact)
        if kind is TokensEmitted:
            machine, start_s, boundaries_s, batch, finished = fact
            self._machines[machine].emit(start_s, list(boundaries_s), batch, finished)
        else:
            self.handlers[kind](now_s, fact)

    @property
    def emitters(self) -> list[Callable[[float, list[float], Batch | None, tuple[int, ...]], None]]:
        """Records a TokensEmitted of one machine by its other fields: half of all facts, and the virtual loop is hot."""
        return [log.emit for log in self._machines]

    @property
    def num_steps(self) -> int:
        """How many steps were recorded so far."""
        return sum(len(machine.step_ends_s) for machine in self._machines)

    def _on_move_payload(self, now_s: float, fact: PayloadMoved) -> None:
        self._payloads.append(fact)

    def _on_move_pool(self, now_s: float, fact: PoolChanged) -> None:
        self._pool_moves.append((now_s, *fact))

    def _on_requeue(self, now_s: float, fact: RequestRequeued) -> None:
        self._requeues.append((now_s, fact.request_id, fact.evicted, fact.cause))

    def _on_drop_stale(self, now_s: float, fact: StaleDropped) -> None:
        self._drops.append((now_s, *fact))

    def _on_answer(self, now_s: float, fact: OutputWritten) -> None:
        known = self._answers.get(fact.request_id)
        if known is None or known.attempt <= fact.attempt:
            self._answers[fact.request_id] = fact

    def _on_probe_step(self, now_s: float, fact: ProbeStepRun) -> None:
        self._probe_steps.append((now_s, *fact))

    def columns(self) -> Columns:
        """The tables of the run, computed at the first call: nothing may be recorded after it."""
        if self._columns is None:
            machines, request_log = self._machines, self._requests
            del self._machines, self._requests, self.handlers  # as large as the tables that take their place
            steps = tables.step_table(machines)
            segments = tables.segment_table(machines, steps)
            prefill_start_s = tables.prefill_starts_s(machines, steps, len(self.workload))
            del machines
            tokens = TokenTimes(segments, steps.end_s, len(self.workload))
            transfers = tables.transfer_table(request_log)
            requeues = Requeues(*tables.event_columns(self._requeues, (float, np.int32, bool, str)))
            requests = tables.request_table(
                self.workload, request_log, steps, segments, tokens, transfers, requeues, prefill_start_s
            )
            answers = tables.answer_table(self._answers.values(), requests)
            self._columns = Columns(
                requests=tables.asked_as_answered(requests, answers) if len(answers) else requests,
                steps=steps,
                batches=steps.batches,
                segments=segments,
                tokens=tokens,
                transfers=transfers,
                payloads=Payloads(*tables.event_columns(self._payloads, _PAYLOAD_TYPES)),
                pool_moves=PoolMoves(*tables.event_columns(self._pool_moves, (float, np.int32, str))),
                requeues=requeues,
                drops=Drops(*tables.event_columns(self._drops, (float, np.int32, np.int32, str))),
                answers=answers,
                probe_steps=ProbeSteps(*tables.event_columns(self._probe_steps, (float, np.int32, str, float))),
            )
        return self._columns
