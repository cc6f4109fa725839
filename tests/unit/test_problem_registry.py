"""The registry of problem codes holds every code that is used and no other, and the docs follow it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.cli.problem_tables import pages
from overlayd.core.status.problem import Problem
from overlayd.core.status.registry import REGISTRY, TRUE_WHEN, ConditionType, ProblemCode, Severity, Truth
from support.problems import CODE, TOP, calls, problem_codes

CORE = TOP / "overlayd" / "core"
PASSED_ON = {"overlayd/core/leases/book.py", "overlayd/core/leases/records.py"}
"""Modules that make problems with a code which another call gave them."""


def test_registry_has_every_code_that_is_used_and_no_other() -> None:
    assert problem_codes() == set(REGISTRY)


def test_problem_codes_are_literals_where_problems_are_made() -> None:
    for place, call in calls():
        literals = [
            part for argument in call.args for part in ast.walk(argument) if isinstance(part, ast.Constant)
        ]
        is_literal = any(CODE.fullmatch(str(part.value)) for part in literals)
        assert is_literal or place.partition(":")[0] in PASSED_ON, place


@given(st.text() | st.from_regex(r"[a-z]+(-[a-z]+)+", fullmatch=True))
def test_problem_with_an_unregistered_code_is_refused(code: str) -> None:
    if code in REGISTRY:
        Problem(code, "text")
        return
    with pytest.raises(ValueError, match="not in the registry"):
        Problem(code, "text")


def test_no_code_is_told_by_its_literal_where_conditions_are_read() -> None:
    readers = [*(TOP / "overlayd/api").glob("*.py"), *(TOP / "overlayd/cli").glob("status.py")]
    readers += [CORE / "status/health.py", TOP / "overlayd/host/systemd.py"]
    beliefs = {"held", "fenced", "lost", "unclaimed"}
    for path in readers:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in REGISTRY, f"{path}:{node.lineno}"
                assert node.value not in beliefs, f"{path}:{node.lineno}"


@pytest.mark.parametrize("row", REGISTRY.values(), ids=lambda row: row.code)
def test_row_is_well_formed(row: ProblemCode) -> None:
    assert CODE.fullmatch(row.code)
    assert row.truth is not Truth.TRUE
    for text in (row.meaning, row.remedy):
        assert text == text.strip()
        assert not text.endswith(".")
        assert "|" not in text
        assert text[0].isupper() or text.startswith(("`", "etcd "))


def test_every_condition_says_what_it_claims() -> None:
    assert set(TRUE_WHEN) == set(ConditionType)
    assert {row.severity for row in REGISTRY.values()} == set(Severity)


def test_docs_have_the_tables_of_this_registry() -> None:
    for page, text in pages(TOP / "docs").items():
        assert page.read_text() == text, f"{page.name} is older than the registry: make problems"


def test_page_without_a_place_for_its_tables_is_named(tmp_path: Path) -> None:
    (tmp_path / "operations.md").write_text("# Operations\n")
    with pytest.raises(ValueError, match=re.escape("operations.md has 0 places")):
        pages(tmp_path)
