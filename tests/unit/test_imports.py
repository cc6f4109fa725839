"""The import law: which part of overlayd may know which other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]

ALLOWED = {
    "overlayd/core": {"overlayd.core"},
    "overlayd/store": {"overlayd.core", "overlayd.store"},
    "overlayd/host": {"overlayd.core", "overlayd.host"},
    "overlayd/api": {"overlayd.core", "overlayd.api"},
    "overlayd/testing": {"overlayd"},
    "backends/overlayd_backends": {"overlayd.core", "overlayd_backends"},
}
"""What the files below a folder may import of ours."""


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written out"
            found.add(node.module or "")
    return found


def is_below(module: str, parents: set[str]) -> bool:
    return any(module == parent or module.startswith(parent + ".") for parent in parents)


@pytest.mark.parametrize("folder", ALLOWED)
def test_each_part_knows_only_what_it_may(folder: str) -> None:
    files = list((TOP / folder).rglob("*.py"))
    assert files
    for path in files:
        for module in imports(path):
            if module.split(".")[0] in ("overlayd", "overlayd_backends"):
                assert is_below(module, ALLOWED[folder]), f"{path.relative_to(TOP)} imports {module}"


PURE = {
    *("__future__", "bisect", "collections", "contextlib", "dataclasses", "enum", "functools", "heapq"),
    *("ipaddress", "itertools", "json", "math", "operator", "re", "string", "types", "typing"),
    *("msgspec", "overlayd"),
}
"""What the core may import: no clock, no lots, nothing that touches the machine."""


def test_the_core_is_pure() -> None:
    for path in (TOP / "overlayd/core").rglob("*.py"):
        names = {module.split(".")[0] for module in imports(path)}
        assert names <= PURE, f"{path.name} imports {names - PURE}"


EXTRAS = {"overlayd.lab", "overlayd.bench", "overlayd.testing"}
OF_EXTRAS = (
    "overlayd/lab/",
    "overlayd/bench/",
    "overlayd/testing/",
    "overlayd/cli/lab.py",
    "overlayd/cli/bench.py",
)


def test_the_daemon_never_imports_the_lab_the_bench_or_the_fakes() -> None:
    for path in (TOP / "overlayd").rglob("*.py"):
        relative = str(path.relative_to(TOP))
        if relative.startswith(OF_EXTRAS):
            continue
        for module in imports(path):
            assert not is_below(module, EXTRAS), f"{relative} imports {module}"


def test_the_lab_does_without_the_bench() -> None:
    for path in (TOP / "overlayd/lab").rglob("*.py"):
        for module in imports(path):
            assert not is_below(module, {"overlayd.bench", "overlayd.testing"}), f"{path.name} imports {module}"
