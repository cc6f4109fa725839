"""The documents keep up with the code: each problem that can be named is explained, each link leads somewhere."""

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


def test_every_problem_is_in_the_operators_handbook() -> None:
    codes = problem_codes()
    assert len(codes) > 20
    handbook = (TOP / "docs/operations.md").read_text()
    assert sorted(code for code in codes if f"`{code}`" not in handbook) == []
    explained = set(re.findall(r"^\| `([a-z-]+)`(?:, `([a-z-]+)`)?", handbook, re.MULTILINE))
    assert {code for pair in explained for code in pair if code} <= codes, "explained, but never said"


def test_every_relative_link_leads_somewhere() -> None:
    for document in [*TOP.glob("*.md"), *(TOP / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} → {target}"
