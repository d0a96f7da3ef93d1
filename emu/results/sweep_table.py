"""results.parquet of a sweep: a row a run, in order, with what was set and what came out.

A run is described by what stands in its directory, `DIRECTORY/NUMBER/`: summary.json where it ended as it should,
failure.json where it did not; and the sweep by `DIRECTORY/sweep.json`, whose `runs` have their `settings` by name.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from emu.files import parse_json, read_text, replacing, write_text
from emu.results.distribution import p99_mark
from emu.results.failures import failure_text

PER_MACHINE = ("utilisation.machines", "shadow")  # a thousand columns for a thousand machines: they stay in the summary
SWEEP, TABLE, SUMMARY, FAILURE = "sweep.json", "results.parquet", "summary.json", "failure.json"
FINISHED, FAILED, MISSING = "finished", "failed", "missing"


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in the file; None where there is none, or something else."""
    try:
        content = parse_json(read_text(path))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write `content` to `path`, all or nothing: a reader never sees half a file."""
    write_text(json.dumps(content, indent=1) + "\n", path)


def finished_summary(run_dir: Path) -> dict[str, Any] | None:
    """The summary of the run in `run_dir`; None where it did not run to its end."""
    summary = read_json(run_dir / SUMMARY)
    if summary is None or summary.get("interrupted") != "" or not {"verdict", "saturated"} <= summary.keys():
        return None
    return summary


def is_sweep(content: Mapping[str, Any] | None) -> TypeGuard[dict[str, Any]]:
    """True if `content` lists one or more runs as sweep.json does."""
    runs = (content or {}).get("runs")
    return (
        isinstance(runs, list)
        and bool(runs)
        and all(isinstance(run, dict) and isinstance(run.get("settings"), dict) and "workload" in run for run in runs)
    )


def sweep_rows(sweep_dir: Path) -> list[dict[str, Any]]:
    """A row a run of the sweep: `run`, its settings, `status` (finished, failed or missing: not run), `error` (why it failed),
    `workload.digest` (equal where the requests are) and the figures of its summary by dotted name.

    `host` is left out: the rows depend on the configurations alone. So are figures of single machines, and those that have
    the name of a setting. The columns are those of all rows, None where a run has no such figure.
    """
    sweep = read_json(sweep_dir / SWEEP)
    assert is_sweep(sweep)  # as the caller has seen
    runs = [_row(number, run, sweep_dir / str(number)) for number, run in enumerate(sweep["runs"])]
    columns = dict.fromkeys(column for run in runs for column in run)
    return [{column: run.get(column) for column in columns} for run in runs]


def write_sweep_table(sweep_dir: Path) -> Counter[str]:
    """Write results.parquet; returns how many runs ended how: SATURATED, else their verdict, else their status.

    The same runs give the same bytes, in whatever order and by whichever process they were run. Raises OSError.
    """
    import pyarrow as pa
    from pyarrow import parquet

    rows = sweep_rows(sweep_dir)
    columns = {name: _as_column([row[name] for row in rows]) for name in rows[0]}
    with replacing(sweep_dir / TABLE) as temporary:
        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        parquet.write_table(table, temporary, compression="zstd")
    return Counter(outcome(row) for row in rows)


def outcome(row: Mapping[str, Any]) -> str:
    """FAILED, MISSING, INVALID, SATURATED, DEGRADED, ILLUSTRATIVE or VALID: the worst that there is to say of a run."""
    if row["status"] != FINISHED:
        return row["status"].upper()
    return "SATURATED" if row["saturated"] and row["verdict"] != "INVALID" else row["verdict"]


def is_usable(row: Mapping[str, Any]) -> bool:
    """Whether the figures of a run may be compared with others': only such a run can be better than another. Those of an
    illustrative run may be with those of illustrative runs."""
    return outcome(row) in ("VALID", "ILLUSTRATIVE", "DEGRADED")


def reasons_of(row: Mapping[str, Any]) -> str:
    """Why a run failed, or what its verdict and its failed requests are for; '' where there is nothing to say."""
    return str(row["error"] or "; ".join(filter(None, map(row.get, ("verdict_reasons", "failures")))))


def p99_mark_of(row: Mapping[str, Any], statistic: str) -> str:
    """What follows a latency of the row: ` of 29 requests` after a p99 of so few, else nothing."""
    number = row.get("measured_requests")
    return p99_mark(int(number)) if statistic == "p99" and number is not None else ""


def illustration_of(row: Mapping[str, Any]) -> str:
    """Why the figures of a run are illustrative; '' where they are not."""
    return row.get("timing.illustrative") or ""


def _row(number: int, run: Mapping[str, Any], run_dir: Path) -> dict[str, Any]:
    summary = finished_summary(run_dir)
    failure = None if summary else read_json(run_dir / FAILURE)
    status = FINISHED if summary else FAILED if failure else MISSING
    known = {"run": number, **run["settings"], "status": status, "error": str(failure.get("error")) if failure else ""}
    known["workload.digest"] = run["workload"]
    figures = dict(_flattened({key: value for key, value in (summary or {}).items() if key != "host"}))
    return known | {name: value for name, value in figures.items() if name not in known}


def _flattened(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            if f"{prefix}{key}" not in PER_MACHINE:
                yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "; ".join(map(_item_text, value)) if isinstance(value, list) else value


def _item_text(item: Any) -> str:
    return failure_text(item) if isinstance(item, dict) and "first_request" in item else str(item)


def _as_column(values: list[Any]) -> list[Any]:
    """The values, as text where they are of several kinds."""
    kinds = {float if isinstance(value, float | int) and not isinstance(value, bool) else type(value) for value in values}
    kinds.discard(type(None))
    if len(kinds) > 1:
        return [None if value is None else str(value) for value in values]
    if float in kinds and any(isinstance(value, float) for value in values):
        return [None if value is None else float(value) for value in values]
    return values
