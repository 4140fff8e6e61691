"""Fails when a Python file of the project is much longer than 400 lines or a function much longer than 60."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOMS = ("clinical_data", "search", "evaluation", "workflow", "benchmarks")
MOST_FILE, MOST_TEST_FILE, MOST_FUNCTION = 440, 500, 66  # "about 400" and "about 60"; tables make tests longer
FREE = "evaluation/migrations/versions"  # a migration is one list of tables


def main() -> int:
    """Writes one line per trespass to stderr; returns 1 when there is any."""
    wrong = []
    for path in sorted(p for room in (*ROOMS, "tests") for p in Path(room).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        test = path.parts[0] == "tests"
        if (lines := text.count("\n")) > (MOST_TEST_FILE if test else MOST_FILE):
            wrong.append(f"{path}: {lines} lines")
        if not test and not path.as_posix().startswith(FREE):
            wrong += [f"{path}:{line}: {name} has {length} lines" for line, name, length in long_functions(text)]
    sys.stderr.writelines(f"{line}\n" for line in wrong)
    return int(bool(wrong))


def long_functions(text: str) -> list[tuple[int, str, int]]:
    """Returns (line, name, lines) of every function that is too long."""
    nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    found = [(n.lineno, n.name, statement_lines(n)) for n in nodes]
    return [one for one in found if one[2] > MOST_FUNCTION]


def statement_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Returns the lines of a function's statements: signature and docstring are what a reader skips."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (node.end_lineno or node.lineno) - body[0].lineno + 1 if body else 0


if __name__ == "__main__":
    sys.exit(main())
