"""Labs for the tests in here."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import ExitStack

import pytest

from overlayd.lab.launcher import HeldLab
from overlayd.lab.model import LabSpec
from support.host import NOBODY, HostProcess, NoInterpreter
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


@pytest.fixture(scope="module", params=[None, NOBODY], ids=["own user", "uid 65534"])
def host(request: pytest.FixtureRequest) -> Generator[HostProcess]:
    """A host of its own, on which commands run as one user or the other."""
    require_namespaces()
    if request.param is not None and os.geteuid() != 0:
        pytest.skip("needs root: to become another user")
    try:
        host = HostProcess(request.param)
    except NoInterpreter as error:
        pytest.skip(str(error))
    with host:
        yield host
