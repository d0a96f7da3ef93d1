"""Rows of comma-separated values under a header."""

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from emu.workload.traces.row import MALFORMED, Row, Time, whole_text
from emu.workload.traces.times import DateReader, FixedUnit, decimal_time

RowParser = Callable[[str], Row]


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """Columns are found by name. `fields` are those of arrival time, prompt tokens and output tokens, `count_field` that of how
    many requests a row is. `unit` is None where the format says nothing about it.
    """

    name: str
    fields: tuple[str, str, str]
    example: str
    unit: FixedUnit | None
    count_field: str = ""
    kept: tuple[str, ...] = ()
    block_tokens: int = 0
    has_header: bool = True

    @property
    def used(self) -> set[str]:
        return {*self.fields, self.count_field} - {""}

    @property
    def first_line(self) -> str:
        return ",".join(self.used_in_order)

    @property
    def used_in_order(self) -> tuple[str, ...]:
        return (*self.fields, self.count_field) if self.count_field else self.fields

    def names_in(self, first_line: str) -> list[str]:
        """The columns that a header has; none where it is no header."""
        try:
            names = values_of(first_line)
        except MALFORMED:
            return []
        return [] if first_line.lstrip().startswith("{") else [name.strip(" \t") for name in names]

    def line_parser(self, first_line: str, unused: set[str]) -> RowParser:
        """Reads a line under the header `first_line`; puts into `unused` which columns it does not read."""
        header = self.names_in(first_line)
        unused.update(name for name in header if name and name not in self.used)
        num_columns = len(header)
        time_at, prompt_at, output_at = map(header.index, self.fields)
        time_field, prompt_field, output_field = self.fields
        count_at = header.index(self.count_field) if self.count_field else -1
        read_time: Callable[[str, str], Time] = DateReader() if self.unit == FixedUnit("date") else decimal_time

        def parse(line: str) -> Row:
            values = line.split(",") if '"' not in line else values_of(line)
            if len(values) != num_columns:
                raise ValueError
            return Row(
                read_time(time_field, values[time_at]),
                whole_text(prompt_field, values[prompt_at]),
                whole_text(output_field, values[output_at]),
                whole_text(self.count_field, values[count_at]) if count_at >= 0 else 1,
                None,
            )

        return parse


def values_of(line: str) -> list[str]:
    return next(csv.reader([line], strict=True), [])


def twice(names: Iterable[str]) -> str | None:
    """The first name that occurs again, None without."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
