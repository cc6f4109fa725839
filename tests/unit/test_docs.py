"""The documents keep up with the code: each problem that can be named is explained, each link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from overlayd.lab.suite.catalogue import CHECKS
from support.problems import problem_codes

TOP = Path(__file__).parents[2]
TROUBLESHOOTING = (TOP / "docs/troubleshooting.md").read_text()
DOCUMENTS = [*TOP.glob("*.md"), *(TOP / "docs").rglob("*.md")]
ROOTS = (TOP, TOP / "overlayd", TOP / "backends", TOP / "tests")
PATH = re.compile(
    r"(?<![\w./<>-])(?:overlayd|backends|deploy|docs|tests|core|node|host|store|cli|lab|bench|api)/[\w./-]*\w(?![\w*]|/\*)"
)
"""A path that begins with a directory of the repository or of the package."""
MODULE = re.compile(r"(?<![\w./-])(?:overlayd|overlayd_backends|support)(?:\.[a-z_]\w*)+")
OTHERS = {
    *("overlayd.backends", "overlayd.drivers", "overlayd.datapaths"),  # groups of entry points
    *("overlayd.service", "overlayd.env"),
    "overlayd/held",  # a key
}
"""Names that look like a path or a module."""


def test_every_problem_is_in_the_operators_handbook() -> None:
    codes = problem_codes()
    assert len(codes) > 20
    handbook = (TOP / "docs/operations.md").read_text()
    assert sorted(code for code in codes if f"`{code}`" not in handbook) == []
    explained = set(re.findall(r"^\| `([a-z]+-[a-z-]+)` \|", TROUBLESHOOTING, re.MULTILINE))
    assert explained - {check.name for check in CHECKS} == codes, "said and explained"


def test_every_relative_link_leads_somewhere() -> None:
    for document in DOCUMENTS:
        text = document.read_text()
        for target, anchor in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", text):
            page = document.parent / target if target else document
            assert page.exists(), f"{document.name} → {target}"
            assert not anchor or anchor in anchors(page), f"{document.name} → {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """Make the anchors of a page's headings, as GitHub does."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


# The page about backends names the files of another package, which a test in tests/lab installs.
OF_THIS_PROJECT = [document for document in DOCUMENTS if document.name != "write-a-backend.md"]


@pytest.mark.parametrize("document", OF_THIS_PROJECT, ids=lambda path: path.name)
def test_every_path_and_module_that_is_named_exists(document: Path) -> None:
    for span in re.findall(r"`([^`\n]+)`", document.read_text()):
        for path in {*PATH.findall(span)} - OTHERS:
            assert exists(path), f"{document.name} names {path}"
        for module in {*MODULE.findall(span)} - OTHERS:
            path = module.replace(".", "/")
            assert exists(path) or exists(path.rpartition("/")[0]), f"{document.name} names {module}"


def exists(path: str) -> bool:
    """Tell whether there is such a file, directory or module."""
    return any((root / path).exists() or (root / f"{path}.py").exists() for root in ROOTS)
