"""Which part of overlayd may import which other.  The tables are the rule: edit them when the design changes.

Imports inside functions count like those at the top of a file.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
ROOTS = {"overlayd": TOP / "overlayd", "overlayd_backends": TOP / "backends/overlayd_backends"}

ALLOWED = {
    "overlayd.core": set(),
    "overlayd.plugins": {"overlayd.core"},
    "overlayd.store": {"overlayd.core"},
    "overlayd.host": {"overlayd.core"},
    "overlayd.node": {"overlayd.core", "overlayd.host"},
    "overlayd.api": {"overlayd.core"},
    "overlayd.lab": {"overlayd.core", "overlayd.plugins", "overlayd.host", "overlayd.api"},
    "overlayd.bench": {"overlayd.core", "overlayd.lab"},
    "overlayd.testing": {"overlayd.core", "overlayd.plugins", "overlayd.store", "overlayd.host", "overlayd.node"},
    "overlayd.cli": {
        *("overlayd.core", "overlayd.plugins", "overlayd.store", "overlayd.host", "overlayd.node", "overlayd.api"),
        *("overlayd.lab", "overlayd.bench"),
    },
    "overlayd.__main__": {"overlayd.cli"},
    "overlayd_backends": {"overlayd.core"},
}
"""What each package may import beside itself and the version in `overlayd`."""

EXTRAS = ("overlayd.lab", "overlayd.bench")
"""What the daemon's installation lacks the dependencies of."""
COMMANDS_OF_EXTRAS = ("overlayd.cli.lab", "overlayd.cli.bench")
"""The modules of the command line that may import these."""

CORE_ORDER = (
    "text",
    "status.registry",
    "status.problem",
    "network.addresses",
    "network.config",
    "kernel",
    "status.status",
    "leases",
    "network",
    "kernel.tracker",
    "firewall",
    "host",
    "publish",
    "decide",
    "claim",
    "changes",
    "report",
    "status",
)
"""The parts of the core, lowest first: each imports only from itself and from those before it.

A module that stands here by its own name is a part of its own, apart from its subpackage.
"""

PURE = {
    *("__future__", "bisect", "collections", "contextlib", "dataclasses", "enum", "functools", "heapq"),
    *("ipaddress", "itertools", "json", "math", "operator", "re", "shlex", "string", "types", "typing"),
    *("unicodedata", "msgspec", "overlayd"),
}
"""What the core may import: no clock, no randomness, nothing that touches the machine."""


@cache
def modules() -> dict[str, Path]:
    """All modules of the project that are installed, by name."""
    found = {}
    for package, folder in ROOTS.items():
        for path in folder.rglob("*.py"):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """The modules that one imports: of ours the very modules, of others' the name as it is written."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            parent = node.module or ""
            names = {f"{parent}.{alias.name}" for alias in node.names}
            found |= {name if name in modules() else parent for name in names}
    return frozenset(found - {module})


def is_below(module: str, parent: str) -> bool:
    return module == parent or module.startswith(parent + ".")


def imported_modules() -> Iterator[tuple[str, str]]:
    """Each module of ours with each other one that it imports."""
    for module in modules():
        for other in imports(module):
            if other in modules():
                yield module, other


def place_in_core(module: str) -> int:
    """The place of a core module in CORE_ORDER; the longest name that fits counts."""
    name = module.removeprefix("overlayd.core.")
    fitting = [part for part in CORE_ORDER if is_below(name, part)]
    assert fitting, f"{module} has no place in CORE_ORDER"
    return CORE_ORDER.index(max(fitting, key=len))


def test_tables_name_every_package() -> None:
    packages = {".".join(module.split(".")[:2]) for module in modules() if is_below(module, "overlayd")}
    assert packages - {"overlayd"} | {"overlayd_backends"} == ALLOWED.keys()
    parts = {f"overlayd.core.{part}" for part in CORE_ORDER}
    assert parts <= modules().keys()


@pytest.mark.parametrize("package", ALLOWED)
def test_package_imports_only_what_it_may(package: str) -> None:
    for module, other in imported_modules():
        if is_below(module, package) and other != "overlayd":
            allowed = ALLOWED[package] | {package}
            assert any(is_below(other, each) for each in allowed), f"{module} imports {other}"


def test_command_line_without_the_extras_imports_none_of_them() -> None:
    for module, other in imported_modules():
        if is_below(module, "overlayd.cli") and module not in COMMANDS_OF_EXTRAS:
            assert not any(is_below(other, extra) for extra in EXTRAS), f"{module} imports {other}"


def test_core_parts_import_only_from_those_before() -> None:
    for module, other in imported_modules():
        if is_below(module, "overlayd.core") and other != "overlayd":
            assert place_in_core(other) <= place_in_core(module), f"{module} imports {other}"


def test_core_is_pure() -> None:
    for module in modules():
        if is_below(module, "overlayd.core"):
            names = {name.split(".")[0] for name in imports(module)}
            assert names <= PURE, f"{module} imports {names - PURE}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for module, other in imported_modules():
        graph[module].add(other)
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_no_public_class_name_is_used_twice() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for module, path in modules().items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
    assert len(places) > 200, "so that it looked at all of them"


BELOW_THE_SEAM = (
    *("overlayd.core.leases.store", "overlayd.core.leases.records", "overlayd.core.leases.lease_record"),
    *("overlayd.core.leases.codec", "overlayd.core.leases.keeper", "overlayd.core.leases.admin"),
)
"""What knows of revisions, grants and transactions, and may be known to the stores, the operator's tools and the
simulation of a store alone."""
MAY_LOOK_BELOW = ("overlayd.store", "overlayd.cli", "overlayd.testing")
TOLD_BY_NAME = {("overlayd.core.decide", "overlayd.core.leases.codec")}
"""`decide` asks of attributes alone whether peers could read them."""


def test_nothing_above_the_seam_to_the_store_knows_how_it_keeps_leases() -> None:
    for module, other in imported_modules():
        if any(is_below(module, each) for each in (*BELOW_THE_SEAM, *MAY_LOOK_BELOW)):
            continue
        looks_below = any(is_below(other, each) for each in BELOW_THE_SEAM)
        assert not looks_below or (module, other) in TOLD_BY_NAME, f"{module} imports {other}"
