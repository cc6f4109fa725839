"""Which problems overlayd can name, read off its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).parents[2]
CODE = re.compile(r"[a-z]+(-[a-z]+)+")
MAKERS = ("Problem", "_faulty")
"""What is called with a code: problems, and the book's entry for a record that is at fault."""


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call that makes a problem, and where it is."""
    for path in [*(TOP / "overlayd").rglob("*.py"), *(TOP / "backends").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in MAKERS:
                yield f"{path.relative_to(TOP)}:{node.lineno}", node


def problem_codes() -> set[str]:
    """Every literal in those calls that has the form of a code: the argument, or either end of a condition."""
    return {
        part.value
        for _, call in calls()
        for argument in call.args[:3]
        for part in ast.walk(argument)
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and CODE.fullmatch(part.value)
    }
