"""A tool that imports another one finds it also where Python leaves a script's own folder out (PYTHONSAFEPATH)."""

import ast
from pathlib import Path

TOOLS = sorted((Path(__file__).parents[2] / "tools").glob("*.py"))
ADDED = "sys.path.insert(0, str(Path(__file__).parent))"


def imported(statement):
    if isinstance(statement, ast.ImportFrom):
        return {statement.module}
    return {alias.name for alias in statement.names} if isinstance(statement, ast.Import) else set()


def test_every_tool_that_is_started_finds_the_others():
    names, importers = {path.stem for path in TOOLS}, []
    for path in TOOLS:
        body = ast.parse(path.read_text()).body
        first = next((number for number, statement in enumerate(body) if imported(statement) & names), None)
        is_started = any(isinstance(statement, ast.If) and "__main__" in ast.unparse(statement.test) for statement in body)
        if first is not None and is_started:
            importers.append(path.stem)
            assert any(ast.unparse(statement) == ADDED for statement in body[:first]), path
    assert {"bench_transfer", "bench_virtual", "fit_power", "validate_timing"} <= set(importers)
