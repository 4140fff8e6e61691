"""Fails when a Python file of the project is longer than 400 lines or a function longer than 60."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOMS = ("clinical_data", "search", "evaluation", "workflow", "benchmarks", "tests")
MOST_FILE, MOST_FUNCTION = 400, 60
LEEWAY = 1.1  # "about"


def main() -> int:
    """Writes one line per trespass to stderr; returns 1 when there is any."""
    wrong = []
    for path in (p for room in ROOMS for p in sorted(Path(room).rglob("*.py"))):
        text = path.read_text(encoding="utf-8")
        if (lines := text.count("\n")) > MOST_FILE * LEEWAY:
            wrong.append(f"{path}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = statement_lines(node)
                if length > MOST_FUNCTION * LEEWAY:
                    wrong.append(f"{path}:{node.lineno}: {node.name} has {length} lines")
    sys.stderr.writelines(f"{line}\n" for line in wrong)
    return int(bool(wrong))


def statement_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Returns the lines of a function's statements: signature and docstring are what a reader skips."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (node.end_lineno or node.lineno) - body[0].lineno + 1 if body else 0


if __name__ == "__main__":
    sys.exit(main())
