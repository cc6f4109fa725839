"""docs/troubleshooting.md keeps up with the code: every problem and every check is on it, and nothing made up."""

from __future__ import annotations

import re
from pathlib import Path

from overlayd.cli import VERBS
from overlayd.lab.suite.catalogue import CHECKS
from support.problems import problem_codes

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "troubleshooting.md").read_text()
CODE = re.compile(r"`([a-z]+(?:-[a-z]+)+)`")
"""How the page writes problems and checks, and little else."""
OTHER_WORDS = {"host-gw", "host-local"}


def test_every_problem_and_every_check_has_its_line() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| symptom")]
    symptoms = "".join(line.split(" | ")[0] for line in lines)
    assert {code for code in problem_codes() if f"`{code}`" not in symptoms} == set()
    assert {check.name for check in CHECKS if f"`{check.name}`" not in symptoms} == set()


def test_nothing_is_named_that_there_is_not() -> None:
    known = problem_codes() | {check.name for check in CHECKS} | OTHER_WORDS
    assert set(CODE.findall(PAGE)) - known == set()


def test_each_line_goes_from_symptom_to_cause_to_command() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert len(rows) > 50
    for row in rows:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        assert len(cells) == 3, row
        assert all(cells), row


def test_the_commands_of_overlayd_are_commands_of_overlayd() -> None:
    for page in DOCS.glob("*.md"):
        for verb in re.findall(r"`overlayd ([a-z-]+)", page.read_text()):
            assert verb in VERBS, f"{page.name}: overlayd {verb}"
