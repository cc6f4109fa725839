"""The documents keep up with the code: each problem that can be named is explained, each link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from overlayd.lab.suite.catalogue import CHECKS
from support.problems import problem_codes

TOP = Path(__file__).parents[2]
TROUBLESHOOTING = (TOP / "docs/troubleshooting.md").read_text()


def test_every_problem_is_in_the_operators_handbook() -> None:
    codes = problem_codes()
    assert len(codes) > 20
    handbook = (TOP / "docs/operations.md").read_text()
    assert sorted(code for code in codes if f"`{code}`" not in handbook) == []
    explained = set(re.findall(r"^\| `([a-z]+-[a-z-]+)` \|", TROUBLESHOOTING, re.MULTILINE))
    assert explained - {check.name for check in CHECKS} == codes, "said and explained"


def test_every_relative_link_leads_somewhere() -> None:
    for document in [*TOP.glob("*.md"), *(TOP / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} → {target}"
