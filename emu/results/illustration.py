"""What of a run is illustrative: figures that come from a timing which is no measurement."""

from typing import Any

from emu.core.timing.provenance import ALL_FIGURES
from emu.results.run_record import RunRecord
from emu.results.slo import ServiceLevels


def illustration(record: RunRecord, service_levels: ServiceLevels) -> str:
    """The line that says which figures are illustrative, and why; '' where none are.

    They are as soon as one machine is emulated by a timing that is no measurement. If all machines execute for real, only
    the service levels are, whose references that timing predicts.
    """
    timing = record.cluster.timing
    if timing is None or timing.is_measured:
        return ""
    if len(record.real) < len(record.machines):
        return timing.why_illustrative(ALL_FIGURES)
    return "" if service_levels.timing is None else timing.why_illustrative("service levels")


def timing_facts(record: RunRecord, line: str) -> dict[str, Any]:
    """Where the times of the emulated machines come from, ready for JSON, with the `line` of `illustration`.

    Empty where nothing says so: for machines made by hand."""
    timing = record.cluster.timing
    if timing is None:
        return {}
    error = timing.error if timing.is_measured else None
    return {"name": timing.name, "source": timing.source, "date": timing.date, "error": error, "illustrative": line}
