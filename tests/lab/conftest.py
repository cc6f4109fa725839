"""Labs for the tests in here."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack

import pytest

from overlayd.lab.model import LabSpec
from overlayd.lab.raising import HeldLab
from support.lab import Labs, require_namespaces


@pytest.fixture(scope="session")
def labs() -> Generator[Labs]:
    """Labs of any specification, each made once: `labs.get(LabSpec(backend="host-gw"))`."""
    require_namespaces()
    with ExitStack() as stack:
        yield Labs(stack)


@pytest.fixture(scope="session")
def lab(labs: Labs) -> HeldLab:
    """Three nodes with two pods each, over VXLAN."""
    return labs.get(LabSpec(nodes=3, pods=2))
