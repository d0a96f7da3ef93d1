"""One run of a cluster at a rate: whether it would do, by both judges, and what its machines were doing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emu.core.pools import Role
from emu.provisioning.probe import Probe, observed, plan_probe
from emu.reproduction.published import published_margins
from emu.results.columns import FINISHED, Columns
from emu.results.run_record import RunRecord
from emu.results.utilisation import seconds_by_tokens

# Active tokens at which the share of time at or below is told: 0 is idle.
TOKENS = (
    0,
    1,
    2,
    3,
    5,
    7,
    10,
    12,
    *range(14, 21),
    25,
    30,
    40,
    50,
    70,
    100,
    150,
    200,
    300,
    500,
    700,
    1000,
    1500,
    2000,
    2048,
    3000,
    5000,
    8192,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A `probe` with what else its run tells.

    `published` has the margin of each SLO as the published analysis reckons it (empty where nothing finished), and
    `as_published` is the probe by that judgement. `completed_rps` is how many requests a second ended in the last two thirds
    of the arrivals' time: the throughput of a cluster that is overloaded. Over all decode-only steps by time, `decode_seqs` is
    the mean number of sequences and `decode_context` their mean context in tokens, by hardware (those with such steps).
    `time_at_or_below` is the share of all machine time, by role, with at most this many tokens active (`TOKENS`); idle is none.
    """

    probe: Probe
    published: dict[str, float]
    completed_rps: float
    decode_seqs: dict[str, float]
    decode_context: dict[str, float]
    time_at_or_below: dict[str, list[float]]

    @property
    def met_as_published(self) -> bool:
        return bool(self.published) and min(self.published.values()) > 0

    @property
    def as_published(self) -> Probe:
        missed = tuple(name for name, margin in self.published.items() if margin <= 0)
        return replace(self.probe, met=self.met_as_published, reasons=missed, margins={**self.published})

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"probe": self.probe.as_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Outcome":
        return cls(**values | {"probe": Probe.from_json(values["probe"])})


def observe(overrides: Sequence[str], rate_rps: float) -> Outcome:
    """Run the configuration at `rate_rps`. Raises ConfigError, KeyboardInterrupt as `emu.provisioning.probe.probe`."""
    plan = plan_probe(overrides, rate_rps)
    probe, record = observed(plan, rate_rps)
    columns = record.recorder.columns()
    assert plan.service_levels.timing is not None  # else no plan of a probe
    seqs, context = _decodes(record, columns)
    return Outcome(
        probe=probe,
        published=published_margins(columns, plan.service_levels.timing, plan.service_levels.settings),
        completed_rps=_completed_rps(columns),
        decode_seqs=seqs,
        decode_context=context,
        time_at_or_below=_time_at_or_below(record, columns),
    )


def _completed_rps(columns: Columns) -> float:
    requests = columns.requests
    until_s = float(requests.arrival_s[-1])
    from_s = until_s / 3
    ended = (requests.status == FINISHED) & (requests.last_token_s >= from_s) & (requests.last_token_s < until_s)
    return float(ended.sum()) / (until_s - from_s) if until_s > from_s else 0.0


def _decodes(record: RunRecord, columns: Columns) -> tuple[dict[str, float], dict[str, float]]:
    batches = columns.batches
    seconds = columns.steps.batch_end_s - batches.start_s
    names = np.array([machine.hardware.name for machine in record.machines])[batches.machine]
    seqs, context = {}, {}
    for name in np.unique(names).tolist():
        chosen = (names == name) & (batches.num_decodes > 0) & (batches.num_prefills == 0)
        weights = seconds[chosen]
        if weights.sum() > 0:
            grown = (batches.num_steps[chosen] - 1) / 2 * batches.num_decodes[chosen]
            seqs[name] = float(np.average(batches.num_decodes[chosen], weights=weights))
            per_seq = (batches.context_tokens[chosen] + grown) / batches.num_decodes[chosen]
            context[name] = float(np.average(per_seq, weights=weights * batches.num_decodes[chosen]))
    return seqs, context


def _time_at_or_below(record: RunRecord, columns: Columns) -> dict[str, list[float]]:
    roles = np.array([machine.role for machine in record.machines])
    shares = {}
    for role in (role for role in Role if (roles == role).any()):
        chosen = roles == role
        seconds = np.zeros(TOKENS[-1] + 2)
        tokens, in_step = seconds_by_tokens(columns, chosen)
        seconds[tokens[tokens < len(seconds)]] = in_step[tokens < len(seconds)]
        total_s = record.emulated_s * chosen.sum()
        seconds[0] += total_s - in_step.sum()
        shares[str(role)] = (np.cumsum(seconds)[list(TOKENS)] / total_s).tolist()
    return shares
