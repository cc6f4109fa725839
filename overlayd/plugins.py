"""Finds what is installed: the backends in the entry point group `overlayd.backends`, and in `overlayd.drivers`
the drivers that some of them need beside the kernel's."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points

from overlayd.core.kernel.driver import OpenDriver
from overlayd.core.network.backend import Backend

BACKENDS = "overlayd.backends"
DRIVERS = "overlayd.drivers"
FORMER = "overlayd.datapaths"
"""What the group was called before; a package that was installed then need not be installed again."""


def load_backends() -> Mapping[str, type[Backend]]:
    """Load every installed backend, by the `Type` that the network config calls it."""
    loaded: dict[str, type[Backend]] = {}
    for point in entry_points(group=BACKENDS):
        backend: type[Backend] = point.load()
        loaded[backend.kind] = backend
    return loaded


def load_drivers() -> Mapping[str, OpenDriver]:
    """Load every installed driver, by the name of its entry point."""
    return {point.name: point.load() for group in (FORMER, DRIVERS) for point in entry_points(group=group)}
