"""Which problems overlayd can name, read off its source."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TOP = Path(__file__).parents[2]
CODE = re.compile(r"[a-z]+(-[a-z]+)+")


def problem_codes() -> set[str]:
    """Every first argument of `Problem(…)` in the code that is a literal, and the codes of faulty records."""
    found: set[str] = set()
    for path in (TOP / "overlayd").rglob("*.py"):
        if "lab" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Problem", "_faulty"):
                words = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                found |= {word for word in words if isinstance(word, str) and CODE.fullmatch(word)}
    return found
